//! What pages, metrics and `--json` show, as data.

pub mod metrics;
pub mod model;
#[doc(hidden)]
pub mod testing;
pub mod time;
