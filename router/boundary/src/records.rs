//! Records that outlive the router, and why they could not be kept.

use std::fmt;

/// A change of one record: its key, and its new value or `None` to remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Names the record.
    pub key: Vec<u8>,
    /// The addresses that it holds from then on.
    pub value: Option<Vec<u8>>,
}

/// A record: key and value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Why the store cannot be used, or a batch was not saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{path} is in use by {holder}. Stop that router first, or use another --db-prefix")]
    InUse {
        /// The file.
        path: String,
        /// The other process.
        holder: Held,
    },
    /// The folder or file cannot be made or opened.
    #[error(
        "cannot open {path}: {error}. Check that the folder exists and can be written, or use \
             another --db-prefix"
    )]
    Open {
        /// The file.
        path: String,
        /// The system's error.
        error: String,
    },
    /// The file was written by a later version.
    #[error(
        "{path} has format {found}, this version knows {known}. Use the newer weft, or move \
             the file away"
    )]
    Format {
        /// The file.
        path: String,
        /// The format of the file.
        found: u64,
        /// The format of this version.
        known: u64,
    },
    /// A batch could not be saved.
    #[error(
        "cannot save to {path}: {error}. Free space on the disk or make it writable; nothing \
             was given out that is not saved"
    )]
    Save {
        /// The file.
        path: String,
        /// The system's error.
        error: String,
    },
    /// A batch could neither be saved nor be shown not to be.
    #[error("it is not known what {path} holds ({error}). Restart the router when the disk works")]
    Uncertain {
        /// The file.
        path: String,
        /// The system's error.
        error: String,
    },
    /// The store has ended.
    #[error("the store has been closed")]
    Closed,
}

/// The process that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its pid, if it could be read.
    pub pid: Option<u32>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// Keeps records. Batches are answered in the order in which they are handed in. After a failure
/// all further ones fail as well, until [`Records::resume`]: a batch must not be saved that was
/// made in the belief that the one before it was.
pub trait Records: Send + Sync {
    /// Saves a batch whole or not at all, then calls `done`, from any thread. It was made in the
    /// belief that all earlier ones of this call are saved: after one that failed, the others fail
    /// until [`Records::resume`].
    fn save(&self, changes: Vec<Change>, done: Done);

    /// As [`Records::save`], for a batch to which it does not matter whether others were saved.
    fn save_alone(&self, changes: Vec<Change>, done: Done);

    /// Lets batches in order that are handed in from here on be tried again after a failure.
    fn resume(&self);
}

/// Is told what became of a batch.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
