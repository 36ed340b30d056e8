//! The sleeve overlay.

pub mod link;
mod mtu;

use crate::types::ConnUid;

/// A frame between two routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The sender is there.
    Heartbeat(ConnUid),
    /// A large packet that the kernel fragments.
    FragmentationTest,
    /// A frame of this mtu.
    MtuTest(u16),
}
