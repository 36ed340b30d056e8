//! Interfaces of the kernel: system calls, devices, addresses, namespaces and packet filter rules.
//!
//! Everything here talks to the kernel directly; no helper program is run, so that the binary
//! works from an empty image. Nothing here knows what the router wants on its host.
//!
//! * [`sys`] holds the only unsafe code: calls that the safe crates lack.
//! * [`netlink`] is one synchronous socket to one namespace; [`netns`] finds, makes and enters
//!   namespaces; [`sysctl`] reads and writes settings; [`arp`] announces addresses.
//! * [`packet_filter`] writes and reads tables, chains and rules.
//!
//! Functions that do not take a [`netns::Namespace`] work in that of the calling thread.

pub mod arp;
pub mod error;
pub mod netlink;
pub mod netns;
pub mod packet_filter;
pub mod sys;
pub mod sysctl;
