//! Everything that weft creates and maintains on a host.
//!
//! * [`bridge`] is where containers meet; [`attach`] connects them; [`gateway`] lets the host
//!   itself in and the world behind it. [`reconcile`] keeps all of it as it should be.
//! * [`rules`] are the packet filter rules that this takes; [`resolv_conf`] has containers ask the
//!   router for names; [`overlap`] finds networks of others in the way.
//! * [`lock`] keeps a second router away; [`undo`] takes back what was made when a step fails.
//!
//! Each device that we make carries an alias that starts with [`alias::ALIAS`], by which it is
//! found again after a crash and told from devices of others.

pub mod alias;
pub mod attach;
pub mod blocking;
pub mod bridge;
pub mod container_name;
pub mod gateway;
pub mod lock;
pub mod overlap;
pub mod paths;
pub mod reconcile;
pub mod resolv_conf;
pub mod rules;
pub mod undo;
