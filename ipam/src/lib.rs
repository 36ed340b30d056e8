//! Address management without any I/O: the token ring, the allocator, and leases by identity.

pub mod bolt;
pub mod consensus;
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
pub mod leases;
pub mod messages;
pub mod persist;
pub mod range;
mod range_set;
pub mod ring;
pub mod space;

pub use range_set::RangeSet;
pub mod allocator;
