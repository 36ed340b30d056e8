//! The work that network devices leave to whoever carries their frames: checksums, and cutting
//! what is larger than a packet.
//!
//! A TAP device with a vnet header hands over three kinds of frames ([`vnet`]): complete ones,
//! ones whose checksum is to be filled in ([`checksum`]), and super-frames of up to 64 KiB which
//! stand for many segments of one flow ([`split`]). In the other direction it takes super-frames,
//! which [`join`] makes from consecutive segments of a flow.
//!
//! Everything here works on the caller's buffers, allocates nothing per frame, and passes what it
//! cannot treat on as it is.

pub mod checksum;
mod header;
pub mod join;
pub mod split;
pub mod vnet;
