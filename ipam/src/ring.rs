//! The ring: who owns which addresses of the universe.
//!
//! Entries are sorted by token. The owner of an entry owns the addresses from its token up to
//! the next one; the last entry runs on over the end of the universe to the first token:
//!
//! ```text
//! start      T0            T1                 T2        end
//!   |~~~~~~~~|-------------|------------------|~~~~~~~~~|
//!    owner 2     owner 0         owner 1        owner 2
//! ```
//!
//! Only the owner of an entry changes it, and raises its version when it does; the one
//! exception is a takeover by an administrator. That makes merging two copies a matter
//! of taking the newer entry for each token.
//!
//! Every change is handed back as a list of what was there before, so that a caller can save
//! single entries and can undo.

mod copy;
mod merge;

pub use copy::{Change, ENTRIES_MAX, Entry, Ring, RingError, SEEDS_MAX, TAKEOVER_STEP};
pub use merge::{Contest, ContestKind, Decision, Failed, MergeError, Merged, Rules, WeaveRules};
