//! The work that network devices leave to the carrier of their frames: checksums and segmentation.
//!
//! A TAP device with a vnet header delivers three kinds of frames ([`vnet`]): complete ones, ones
//! whose checksum must be filled in ([`checksum`]), and super-frames of up to 64 KiB, which
//! represent many segments of one flow ([`split`]). In the other direction it accepts super-frames,
//! which [`join`] makes from consecutive segments of a flow.
//!
//! Everything here works on the caller's buffers, allocates nothing per frame, and passes on
//! unchanged what it cannot handle.

pub mod checksum;
mod header;
pub mod join;
pub mod split;
pub mod vnet;
