//! Messages between two weft routers about their connection itself.
//!
//! ```text
//! feature  "Weft": words that say what the end understands: "confirm", "ask", "sleeve"
//! message  8 | kind | body     only where both ends have the word for it
//!   kind 0  confirm  HMAC-SHA-256 over the introduction, the first message of each end
//!        1  ask      a number: are you there?
//!        2  here     the number of the question
//!        3  taken    the address of another live router that carries your name
//!        4  sleeve   1: frames of mine may come over sleeve; 0: none do from here on
//! ```
//!
//! Kinds 5 and 6 are those of the digests of the topology. Everything else that comes under this tag
//! is ignored.

use ring::hmac;

use crate::crypto::SessionKey;
use crate::features::{Ability, Features};

const TAG: u8 = 8;
/// Maximum size of an address in bytes.
const ADDRESS_BYTES_MAX: usize = 64;

/// Abilities that both ends of a connection have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Confirmation of the introduction by each end.
    pub(super) confirm: bool,
    /// Asking whether the other end is alive.
    pub(super) ask: bool,
    /// That each end says whether it uses sleeve.
    pub(super) sleeve: bool,
}

impl Agreed {
    /// Returns what the other end can do of what we can.
    pub(super) fn with(remote: &Features) -> Agreed {
        Agreed {
            confirm: remote.can(Ability::Confirm),
            ask: remote.can(Ability::Ask),
            sleeve: remote.can(Ability::Sleeve),
        }
    }
}

/// One such message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Confirm(Vec<u8>),
    Ask(u64),
    Here(u64),
    Taken(String),
    Sleeve(bool),
}

impl Word {
    /// Reads a message. Returns `None` for other or malformed messages.
    pub(super) fn parse(message: &[u8]) -> Option<Word> {
        let [TAG, kind, body @ ..] = message else {
            return None;
        };
        let number = || body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        match kind {
            0 => Some(Word::Confirm(body.to_vec())),
            1 => number().map(Word::Ask),
            2 => number().map(Word::Here),
            4 => body.first().map(|uses| Word::Sleeve(*uses != 0)),
            3 if body.len() <= ADDRESS_BYTES_MAX => {
                let text = std::str::from_utf8(body).ok()?;
                let is_address = text.parse::<std::net::SocketAddr>().is_ok();
                is_address.then(|| Word::Taken(text.to_owned()))
            }
            _ => None,
        }
    }

    /// Returns true if a message is of this kind, whether it makes sense or not.
    #[cfg(test)]
    pub(super) fn is_tag(message: &[u8]) -> bool {
        message.first() == Some(&TAG)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Word::Confirm(mac) => (0, mac.clone()),
            Word::Ask(number) => (1, number.to_be_bytes().to_vec()),
            Word::Here(number) => (2, number.to_be_bytes().to_vec()),
            Word::Taken(address) => (3, address.as_bytes().to_vec()),
            Word::Sleeve(uses) => (4, vec![u8::from(*uses)]),
        };
        [&[TAG, kind], &body[..]].concat()
    }
}

/// Creates the proof that the end which dialled, or the one that accepted, has the key and saw this
/// introduction.
pub(super) fn confirm(key: &SessionKey, transcript: &[u8; 32], dialler: bool) -> Word {
    let context = context(transcript, dialler);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    Word::Confirm(hmac::sign(&key, &context).as_ref().to_vec())
}

/// Returns true if a message is what [`confirm`] makes.
pub(super) fn is_confirmed(
    message: &[u8],
    key: &SessionKey,
    transcript: &[u8; 32],
    dialler: bool,
) -> bool {
    let Some(Word::Confirm(mac)) = Word::parse(message) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::verify(&key, &context(transcript, dialler), &mac).is_ok()
}

fn context(transcript: &[u8; 32], dialler: bool) -> Vec<u8> {
    let who: &[u8] = match dialler {
        true => b"weft introduction, dialler ",
        false => b"weft introduction, acceptor ",
    };
    [who, transcript].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in [
            Word::Confirm(vec![7; 32]),
            Word::Ask(u64::MAX),
            Word::Here(0),
            Word::Taken("10.0.0.1:6783".to_owned()),
            Word::Sleeve(true),
            Word::Sleeve(false),
        ] {
            assert_eq!(Word::parse(&word.encode()), Some(word));
        }
        for message in [
            &[][..],
            &[8],
            &[7, 0],
            &[8, 9, 1],
            &[8, 1, 0, 0, 0, 0, 0, 0, 1],
            b"\x08\x03not an address",
        ] {
            assert_eq!(Word::parse(message), None);
        }
    }

    #[test]
    fn a_confirmation_is_of_one_end_one_key_and_one_introduction() {
        let [key, other] = [1, 2].map(|byte| SessionKey::from_bytes([byte; 32]));
        let message = confirm(&key, &[3; 32], true).encode();
        assert!(is_confirmed(&message, &key, &[3; 32], true));
        assert!(!is_confirmed(&message, &key, &[3; 32], false));
        assert!(!is_confirmed(&message, &key, &[4; 32], true));
        assert!(!is_confirmed(&message, &other, &[3; 32], true));
        assert!(!is_confirmed(&message[..20], &key, &[3; 32], true));
    }
}
