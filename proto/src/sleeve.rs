//! Sleeve: Ethernet frames in UDP packets between neighbours, in Weave Net's format.
//!
//! A link has two halves. Its state machine ([`link`]) decides when to send heartbeats, what the
//! path MTU is, and when the link has failed. Its [`Tunnel`] is shared with the threads that carry
//! frames: they choose a channel for each frame ([`choose`]), pack frames into encrypted packets
//! and open those that arrive ([`codec`]), fragment packets that do not fit ([`fragment`]) or
//! answer them ([`icmp`]), and pass special frames ([`wire::Special`]) to the state machine.

pub mod channel;
pub mod codec;
pub mod fragment;
pub mod icmp;
pub mod link;
mod mtu;
pub mod replay;
pub mod tunnel;
pub mod wire;

pub use channel::{Choice, DropReason, choose};
pub use codec::{DecodeError, Enclosed, OpenError, Opened, PacketBuilder};
pub use replay::Replay;
pub use tunnel::{LinkId, Tunnel, TunnelConfig};
pub use wire::{Channel, Special};
