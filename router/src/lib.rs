//! router

pub mod sys;
pub mod tap;
pub mod udp;
