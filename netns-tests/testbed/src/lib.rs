//! What tests share. No product crate may use it.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[cfg(feature = "rig")]
mod native_ends;
#[cfg(feature = "rig")]
pub mod rig;
pub mod root;
pub mod skips;
