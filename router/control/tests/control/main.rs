//! The control loop on test implementations of its ports: no root, no sockets, no clock.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod meshes;
mod requests;
mod rig;
