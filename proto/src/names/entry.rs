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

/// Maximum size of a container id in bytes. A longer one makes an entry invalid.
pub const CONTAINER_BYTES_MAX: usize = 255;
/// Highest version of an entry. Changes by one never reach it, and 32-bit routers cannot read more,
/// so entries with a higher one are invalid; our own stay at it.
pub const VERSION_MAX: u32 = i32::MAX as u32;

/// By how much a version may be higher than the one that is known of its entry. Versions count
/// deaths and returns, so an honest one never comes near; a lie within it can be outdone, and one
/// beyond it is not believed.
pub const VERSION_STEP_MAX: u32 = 1 << 16;

/// Seconds since 1970 on the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSecs(pub i64);

impl UnixSecs {
    /// Returns the seconds from `earlier` to this; negative if this is earlier.
    pub const fn since(self, earlier: UnixSecs) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The identity of an entry.
///
/// Rule: `docs/protocol/names.md#1-2-identity`.
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

/// Why an entry is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// The name cannot be carried by a DNS message, or has control characters.
    #[error("invalid hostname")]
    Hostname,
    /// The id is too long or has control characters.
    #[error("invalid container id")]
    Container,
    /// The number is not a peer name.
    #[error("invalid origin")]
    Origin,
    /// The number is not an IPv4 address.
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
    /// Creates an identity and checks its texts.
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

    /// Returns a key that is not greater than any key of this name, in any spelling.
    pub(super) fn floor(hostname: &str) -> Key {
        Key {
            hostname: hostname.to_ascii_uppercase().into(),
            origin: PeerName::UNKNOWN,
            container: "".into(),
            addr: Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Returns true if both are the same but for the spelling of the name.
    pub fn is_variant_of(&self, other: &Key) -> bool {
        self.cmp_folded(other) == Ordering::Equal
    }

    fn cmp_folded(&self, other: &Key) -> Ordering {
        cmp_folded(self.hostname.as_bytes(), other.hostname.as_bytes())
            .then_with(|| self.origin.cmp(&other.origin))
            .then_with(|| self.container.cmp(&other.container))
            .then_with(|| self.addr.cmp(&other.addr))
    }

    /// Returns the order of entries on the wire.
    ///
    /// Format: `docs/protocol/names.md#1-3-payload`.
    pub(super) fn cmp_wire(&self, other: &Key) -> Ordering {
        self.hostname
            .cmp(&other.hostname)
            .then_with(|| self.origin.cmp(&other.origin))
            .then_with(|| self.container.cmp(&other.container))
            .then_with(|| self.addr.cmp(&other.addr))
    }
}

/// Compares case-insensitively. Equal prefixes are skipped eight bytes at a time: names share long
/// prefixes and rarely differ in case.
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
///
/// Rule: `docs/protocol/names.md#1-2-identity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// Number of times that the entry was deleted or revived.
    pub version: u32,
    /// When the entry was deleted; 0 while it is alive.
    pub tombstone: UnixSecs,
}

impl State {
    /// Returns true if the entry is alive.
    pub const fn is_alive(self) -> bool {
        self.tombstone.0 == 0
    }

    /// Returns this state with a version that overrides `seen`.
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

    /// Returns the state after this entry was deleted.
    ///
    /// Rule: `docs/protocol/names.md#2-local`.
    pub(super) fn killed(self, wall: UnixSecs) -> State {
        State {
            // 0 means alive, so a clock before 1970 counts as its first second.
            tombstone: wall.max(UnixSecs(1)),
            ..self.above(self)
        }
    }

    /// Returns the state after this entry was revived.
    ///
    /// Rule: `docs/protocol/names.md#2-local`.
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
    /// The identity.
    pub key: Arc<Key>,
    /// The state.
    pub state: State,
}

/// Keeps one spelling of each name of a container at an address, preferring living entries, then
/// the newer state, then the smaller spelling. `entries` must be sorted by key.
///
/// Weave Net routers insert two spellings again and again, so no message of ours carries both.
///
/// Rule: `docs/protocol/names.md#1-3-payload`.
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
