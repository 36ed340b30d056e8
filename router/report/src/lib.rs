//! The data that pages, metrics and `--json` show.

pub mod metrics;
pub mod model;
#[doc(hidden)]
pub mod testing;
pub mod time;
