//! The ring: which peer owns which addresses of the universe.
//!
//! Entries are sorted by token. The owner of an entry owns the addresses from its token up to the
//! next one. The last entry continues over the end of the universe to the first token:
//!
//! ```text
//! start      T0            T1                 T2        end
//!   |~~~~~~~~|-------------|------------------|~~~~~~~~~|
//!    owner 2     owner 0         owner 1        owner 2
//! ```
//!
//! Only the owner of an entry changes it, and raises its version; the only exception is a takeover
//! by an administrator. Therefore merging two copies means taking the newer entry for each token.
//!
//! Every change returns the previous entries, so that a caller can save single entries and can undo
//! the change.

mod copy;
mod merge;

pub use copy::{
    Change, ENTRIES_MAX, Entry, Ring, RingError, SEEDS_MAX, TAKEOVER_STEP, VERSION_MAX,
};
pub use merge::{Contest, ContestKind, Decision, Failed, MergeError, Merged, Rules, WeaveRules};
