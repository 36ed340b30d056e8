//! `weft genpass`.

use clap::Args;

use super::{CliError, Output};

/// Number of characters of a password: 120 bits, of 6 for each.
const CHARACTERS: usize = 20;
/// The alphabet of passwords: 64 characters that need no quotes in a shell.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";

/// Prints a random password for a mesh.
///
/// Anyone who can connect to the mesh's port can try passwords as fast as their machine computes
/// them; a password of 120 random bits cannot be found that way.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLE:
  install -d -m 700 /etc/weft
  (umask 077; weft genpass > /etc/weft/password)
  weft launch --password-file /etc/weft/password")]
pub(crate) struct GenpassArgs {}

impl GenpassArgs {
    pub(crate) fn run(&self, out: &Output) -> Result<(), CliError> {
        let mut random = [0; CHARACTERS];
        getrandom::fill(&mut random)
            .map_err(|error| CliError::failed(format!("no random bytes available: {error}")))?;
        out.line(&password(&random))
    }
}

/// Returns a character for each byte.
fn password(random: &[u8]) -> String {
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 64)]);
    random.iter().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_byte_counts() {
        let all: Vec<u8> = (0..64).collect();
        let text = password(&all);
        assert_eq!(text.len(), 64);
        assert_eq!(text.chars().collect::<BTreeSet<_>>().len(), 64);
    }
}
