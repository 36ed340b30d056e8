//! router

pub mod data;
pub mod sys;
pub mod tap;
pub mod udp;
