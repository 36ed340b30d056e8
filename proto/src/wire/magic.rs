//! The first bytes of a connection, and what those of other protocols look like.

use std::fmt;

/// What both ends send first.
pub(crate) const MAGIC: &[u8; 5] = b"weave";
/// Size in bytes of the header that both ends send first.
pub(crate) const HEADER_BYTES: usize = MAGIC.len() + 2;

/// The first bytes of a remote that speaks another protocol. Displays them, with a guess at the
/// protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Magic(pub [u8; 5]);

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())?;
        let guess = match &self.0 {
            [0x14..=0x17, 3, ..] => "a TLS client or server",
            b"SSH-1" | b"SSH-2" => "an SSH client or server",
            b"HTTP/" => "an HTTP server",
            magic if HTTP_STARTS.iter().any(|start| magic.starts_with(start)) => "an HTTP client",
            _ => return Ok(()),
        };
        write!(f, " (is this {guess}?)")
    }
}

const HTTP_STARTS: [&[u8]; 9] = [
    b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELET", b"CONNE", b"OPTIO", b"TRACE", b"PRI *",
];
