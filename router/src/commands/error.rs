//! Errors of commands: a message for the user, and an exit status for scripts.

use std::fmt;

use web::client::ClientError;

/// Exit statuses, as `weft help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Failed = 1,
    Usage = 2,
    NotRunning = 3,
    NotFound = 4,
    Late = 5,
}

/// A command that failed.
#[derive(Debug)]
pub struct CliError {
    status: Status,
    message: Message,
}

#[derive(Debug)]
enum Message {
    Text(String),
    /// The user knows already.
    Told,
    /// Help, version and usage errors, which format themselves.
    Clap(Box<clap::Error>),
}

impl CliError {
    /// Something that was tried did not work.
    pub fn failed(message: impl fmt::Display) -> CliError {
        CliError {
            status: Status::Failed,
            message: Message::Text(message.to_string()),
        }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl fmt::Display) -> CliError {
        CliError {
            status: Status::Usage,
            message: Message::Text(message.to_string()),
        }
    }

    /// Returns what was asked for does not exist.
    pub fn not_found(message: impl fmt::Display) -> CliError {
        CliError {
            status: Status::NotFound,
            message: Message::Text(message.to_string()),
        }
    }

    /// Something failed and has been told in another way.
    pub fn told() -> CliError {
        CliError {
            status: Status::Failed,
            message: Message::Told,
        }
    }

    /// Prints the message and gives the exit status.
    pub fn report(self) -> u8 {
        match self.message {
            Message::Clap(error) => {
                // Nothing is left to tell if even the message cannot be printed.
                let _ = error.print();
                u8::try_from(error.exit_code()).unwrap_or(Status::Usage as u8)
            }
            Message::Told => self.status as u8,
            Message::Text(text) => {
                let mut lines = text.lines();
                let first = lines.next().unwrap_or_default();
                super::output::complain(&format!("weft: {first}"));
                lines.for_each(super::output::complain);
                self.status as u8
            }
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let status = match &error {
            ClientError::NotRunning { .. } => Status::NotRunning,
            ClientError::Late { .. } => Status::Late,
            ClientError::Refused { status: 404, .. } => Status::NotFound,
            ClientError::Refused { .. } | ClientError::Broken { .. } => Status::Failed,
        };
        CliError {
            status,
            message: Message::Text(error.to_string()),
        }
    }
}

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> CliError {
        CliError {
            status: Status::Usage,
            message: Message::Clap(Box::new(error)),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Message::Text(text) => f.write_str(text),
            Message::Told => f.write_str("failed"),
            Message::Clap(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for CliError {}
