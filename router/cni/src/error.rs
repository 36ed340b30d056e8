//! Errors of calls.

use std::fmt;

use serde_json::{Value, json};

use crate::conf::Version;
use web::client::ClientError;

/// Kinds of failure, with the numbers of the CNI specification; from 100 on they are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version is unknown, or has no such command.
    Version = 1,
    /// The container does not exist, or is not attached.
    UnknownContainer = 3,
    /// The environment lacks something, or has nonsense.
    Environment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is no JSON, or has values of wrong types.
    Decode = 6,
    /// The configuration has wrong values.
    Config = 7,
    /// It may work later: the router is away, or waits for others.
    TryAgain = 11,
    /// No container can be attached.
    NotAvailable = 50,
    /// Nor do those that are attached reach all others.
    Limited = 51,
    /// Everything else.
    Failed = 100,
    /// The container is not as it was left.
    Changed = 101,
    /// The identity of the container is up elsewhere.
    InUse = 102,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    code: u32,
    msg: String,
    details: String,
}

impl CniError {
    /// Creates a failure: its kind, what it is, and why; the last may be empty.
    pub fn new(code: Code, msg: impl fmt::Display, details: impl fmt::Display) -> CniError {
        CniError::foreign(code as u32, msg, details)
    }

    /// As another plugin told it.
    pub(super) fn foreign(
        code: u32,
        msg: impl fmt::Display,
        details: impl fmt::Display,
    ) -> CniError {
        CniError {
            code,
            msg: msg.to_string(),
            details: details.to_string(),
        }
    }

    /// Something that has no code of its own.
    pub fn failed(msg: impl fmt::Display) -> CniError {
        CniError::new(Code::Failed, msg, "")
    }

    /// The same, with what was tried in front.
    pub(super) fn during(mut self, what: &str) -> CniError {
        self.msg = format!("{what}: {}", self.msg);
        self
    }

    /// Returns true if it failed for this reason.
    pub(super) fn is(&self, code: Code) -> bool {
        self.code == code as u32
    }

    /// As the runtime reads it.
    pub fn to_json(&self, version: Option<Version>) -> Value {
        let version = version.unwrap_or(Version::NEWEST).text();
        let mut value = json!({ "cniVersion": version, "code": self.code, "msg": self.msg });
        if !self.details.is_empty() {
            value["details"] = self.details.clone().into();
        }
        value
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> CniError {
        let code = match &error {
            ClientError::NotRunning { .. }
            | ClientError::Late { .. }
            | ClientError::Broken { .. } => Code::TryAgain,
            ClientError::Refused {
                status: 408 | 503, ..
            } => Code::TryAgain,
            ClientError::Refused { .. } => Code::Failed,
        };
        CniError::new(code, error, "")
    }
}
