//! Inputs and outputs of the allocator, as data.

mod config;
mod error;
mod message;
mod notice;
mod output;
mod proof;
mod request;
mod response;
mod status;

pub use config::{Clock, Config, Init, Origin, StartError};
pub use error::{RequestError, Waiting};
pub use message::{Channel, Delivery, Incoming, Peer};
pub use notice::{Alarm, Event};
pub use output::Output;
pub use proof::Proof;
pub use request::{Found, Request, RequestId};
pub use response::{LeaseInfo, Response};
pub use status::{ElectionStatus, EntryStatus, Health, Status, TakeoverStatus};
