//! The only unsafe code: calls that the kernel knows and the safe crates do not.
//!
//! Each wrapper takes and returns owned or borrowed descriptors and plain slices, so that nothing
//! outside this folder handles a raw pointer.
#![allow(unsafe_code)]

pub mod activation;
pub mod batch;
pub mod ethtool;
pub mod netns;
pub mod packet;
pub mod pktinfo;
pub mod sockopt;
pub mod tap;
pub mod xtables;
