//! The ring's part of the allocator: its channel, grants to others, and the first ring.

pub(super) mod channel;
pub(super) mod election;
pub(super) mod grants;
mod referee;
