//! Entries of the name table: what one peer says about one name.
//!
//! ```text
//! identity   (ContainerID, Origin, Addr, Hostname), compared exactly     -> Key
//! state      (Version, Tombstone); of two states the greater one holds   -> State
//! ```
//!
//! Keys order with letters folded to lower case first, so that all spellings of a name are
//! neighbours in the table.

use std::cmp::Ordering;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::domain;
use crate::types::PeerName;

/// Most bytes of a container id. Longer ones make an entry bad.
pub const CONTAINER_BYTES_MAX: usize = 255;
/// Highest version of an entry. Changes by one never get there, and routers with 32-bit numbers
/// cannot read more, so entries beyond are bad; our own stay at it.
pub const VERSION_MAX: u32 = i32::MAX as u32;

/// By how much a version may be higher than the one that is known of its entry. Versions count
/// deaths and returns, so an honest one never comes near; a lie within it can be outdone, and one
/// beyond it is not believed.
pub const VERSION_STEP_MAX: u32 = 1 << 16;

/// Seconds since 1970 on the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSecs(pub i64);

impl UnixSecs {
    /// Seconds from `earlier` to this; negative if this is the earlier one.
    pub const fn since(self, earlier: UnixSecs) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The identity of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name, fully qualified with its trailing dot, spelled as it was given.
    pub hostname: Box<str>,
    /// The peer that registered the name. Only it may change the entry.
    pub origin: PeerName,
    /// The id of the container, or a word like `weave:extern`.
    pub container: Box<str>,
    /// The address that the name stands for.
    pub addr: Ipv4Addr,
}

/// Why an entry is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// No DNS message can carry the name, or it would garble a page.
    #[error("invalid hostname")]
    Hostname,
    /// The id is too long or has control characters.
    #[error("invalid container id")]
    Container,
    /// The number is no peer name.
    #[error("invalid origin")]
    Origin,
    /// The number is no IPv4 address.
    #[error("invalid address")]
    Addr,
    /// The version is negative or above [`VERSION_MAX`].
    #[error("invalid version")]
    Version,
    /// The time of deletion is negative.
    #[error("invalid tombstone")]
    Tombstone,
    /// The message has more entries than a table may hold.
    #[error("too many entries in one message")]
    TooMany,
}

impl Key {
    /// An identity whose texts were checked.
    pub fn new(
        hostname: &str,
        origin: PeerName,
        container: &str,
        addr: Ipv4Addr,
    ) -> Result<Key, BadEntry> {
        if !domain::is_hostname(hostname) {
            return Err(BadEntry::Hostname);
        }
        if container.len() > CONTAINER_BYTES_MAX || container.chars().any(char::is_control) {
            return Err(BadEntry::Container);
        }
        Ok(Key {
            hostname: hostname.into(),
            origin,
            container: container.into(),
            addr,
        })
    }

    /// Not above any key of this name, in any spelling.
    pub(super) fn floor(hostname: &str) -> Key {
        Key {
            hostname: hostname.to_ascii_uppercase().into(),
            origin: PeerName::UNKNOWN,
            container: "".into(),
            addr: Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Whether both are the same but for the spelling of the name.
    pub fn is_variant_of(&self, other: &Key) -> bool {
        self.cmp_folded(other) == Ordering::Equal
    }

    fn cmp_folded(&self, other: &Key) -> Ordering {
        cmp_folded(self.hostname.as_bytes(), other.hostname.as_bytes())
            .then_with(|| self.origin.cmp(&other.origin))
            .then_with(|| self.container.cmp(&other.container))
            .then_with(|| self.addr.cmp(&other.addr))
    }

    /// The order of entries on the wire.
    pub(super) fn cmp_wire(&self, other: &Key) -> Ordering {
        self.hostname
            .cmp(&other.hostname)
            .then_with(|| self.origin.cmp(&other.origin))
            .then_with(|| self.container.cmp(&other.container))
            .then_with(|| self.addr.cmp(&other.addr))
    }
}

/// Compares with letters folded to lower case. What is equal as it stands is passed over eight
/// bytes at a time: names share long beginnings and seldom differ in case.
fn cmp_folded(a: &[u8], b: &[u8]) -> Ordering {
    const STEP: usize = 8;
    let pairs = a.chunks_exact(STEP).zip(b.chunks_exact(STEP));
    let same = pairs.take_while(|(a, b)| a == b).count() * STEP;
    let fold = |byte: &u8| byte.to_ascii_lowercase();
    a[same..].iter().map(fold).cmp(b[same..].iter().map(fold))
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.cmp_folded(other)
            .then_with(|| self.hostname.cmp(&other.hostname))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What changes about an entry. The greater of two states is the newer one: a higher version, or
/// the same version and a later tombstone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// Counts the times that the entry died or came back.
    pub version: u32,
    /// When the entry died; 0 while it lives.
    pub tombstone: UnixSecs,
}

impl State {
    /// Whether the name still stands for the address.
    pub const fn is_alive(self) -> bool {
        self.tombstone.0 == 0
    }

    /// This, with a version that overrides `seen`.
    pub(super) fn above(self, seen: State) -> State {
        State {
            version: seen.version.saturating_add(1).min(VERSION_MAX),
            ..self
        }
    }

    /// Returns true if an entry can have come from this state to `said` by counting.
    pub(super) fn may_become(self, said: State) -> bool {
        said.version <= self.version.saturating_add(VERSION_STEP_MAX)
    }

    /// This, with a version that overrides `seen`, or comes nearer to it as fast as others follow.
    pub(super) fn outdoing(self, seen: State) -> State {
        let step = self.version.saturating_add(VERSION_STEP_MAX / 2);
        let above = self.above(seen);
        State {
            version: above.version.min(step),
            ..above
        }
    }

    /// The state after the one death that makes this entry's next version.
    pub(super) fn killed(self, wall: UnixSecs) -> State {
        State {
            // 0 means alive, so a clock that stands before 1970 reads as its first second.
            tombstone: wall.max(UnixSecs(1)),
            ..self.above(self)
        }
    }

    /// The state after the one return that makes this entry's next version.
    pub(super) fn revived(self) -> State {
        State {
            tombstone: UnixSecs(0),
            ..self.above(self)
        }
    }
}

/// One entry: an identity and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who says what about which name.
    pub key: Arc<Key>,
    /// Alive or dead, and since which version.
    pub state: State,
}

/// Keeps one spelling of each name of a container at an address: one alive before any dead, then
/// the newer state, then the smaller spelling. `entries` must be in the order of their keys.
///
/// Routers of the original lose count when they hear of two spellings, so no message of ours
/// carries both.
pub(super) fn one_spelling(entries: &mut Vec<Entry>) {
    let rank = |entry: &Entry| (entry.state.is_alive(), entry.state);
    entries.dedup_by(|later, kept| {
        let same = later.key.is_variant_of(&kept.key);
        if same && rank(later) > rank(kept) {
            std::mem::swap(later, kept);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(hostname: &str, version: u32, tombstone: i64) -> Entry {
        let addr = Ipv4Addr::new(10, 0, 0, 1);
        Entry {
            key: Arc::new(Key::new(hostname, PeerName::UNKNOWN, "c", addr).unwrap()),
            state: State {
                version,
                tombstone: UnixSecs(tombstone),
            },
        }
    }

    #[test]
    fn spellings_are_neighbours() {
        let mut names = ["b.", "Ab.", "aB.", "A.", "a.", "AC."];
        names.sort_by_key(|name| entry(name, 0, 0).key);
        assert_eq!(names, ["A.", "a.", "Ab.", "aB.", "AC.", "b."]);
        for name in names {
            assert!(Key::floor(name) <= *entry(name, 0, 0).key);
        }
        assert!(Key::floor("ab.") > *entry("a.", 0, 0).key);
    }

    #[test]
    fn the_living_spelling_is_kept() {
        let mut entries = vec![entry("A.", 5, 100), entry("a.", 0, 0), entry("b.", 0, 0)];
        one_spelling(&mut entries);
        assert_eq!(entries, [entry("a.", 0, 0), entry("b.", 0, 0)]);

        let mut entries = vec![entry("A.", 1, 100), entry("a.", 1, 101)];
        one_spelling(&mut entries);
        assert_eq!(entries, [entry("a.", 1, 101)]);

        let mut entries = vec![entry("A.", 1, 0), entry("a.", 1, 0)];
        one_spelling(&mut entries);
        assert_eq!(entries, [entry("A.", 1, 0)]);
    }

    #[test]
    fn states_stop_at_the_highest_version() {
        let top = State {
            version: VERSION_MAX,
            tombstone: UnixSecs(0),
        };
        assert_eq!(top.killed(UnixSecs(9)).version, VERSION_MAX);
        assert!(top.killed(UnixSecs(9)) > top);
        assert!(!State::default().killed(UnixSecs(-5)).is_alive());
    }
}
