//! Surroundings for tests, in memory. Product code does not name this module.

mod clock;
mod memory;
mod pipes;
mod recorder;

pub use clock::{ManualClock, SeededRandom};
pub use memory::Memory;
pub use pipes::{Pipes, Wires};
pub use recorder::{Recorded, Recorder};
