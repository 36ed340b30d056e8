//! Data planes joined by hand, between real network stacks: TAP devices, bridges, veth pairs and
//! namespaces, with control left out.

#![allow(missing_docs, clippy::unwrap_used)]

mod fallbacks;
mod hostile;
mod limits;
mod mesh;
mod support;
