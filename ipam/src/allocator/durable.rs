//! The state that survives restarts, and a record of what each step changed.
//!
//! Every change goes through a method here that notes what was there before. At the end of a
//! step [`Durable`] makes a batch of the changed records; the notes stay with it, so that
//! a batch that cannot be stored can be taken back.

mod commit;
mod data;
mod settle;
mod time;
mod undo;

pub(super) use data::Durable;
pub(super) use undo::{Moved, Undo};
