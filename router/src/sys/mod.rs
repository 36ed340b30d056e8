//! What safe libraries do not offer: the only unsafe code of the router.
//!
//! Each file wraps one kernel interface and hands out safe, owned types.

#![allow(unsafe_code)]

pub mod ethtool;
pub mod netns;
pub mod packet;
pub mod sockopt;
pub mod tap;
pub mod udp;
