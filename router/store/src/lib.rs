//! Commits batches of records to one file. What a key means is not known here.

mod file;
pub mod lock;
pub mod store;
