//! Addresses that could not be released because the router did not run.
//!
//! A DEL must succeed without the router, or containers could not be removed while it is updated,
//! or after it is gone for good. What is to be given back is noted in a folder, one empty file for
//! each owner, and told to the router by the next call that finds it. Whoever does that holds a
//! lock: an owner that is attached again meanwhile must not lose its new address.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::address::delete_all;
use crate::error::{CniError, Code};
use web::client::Client;

/// The folder of the notes, and the lock beside them.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Creates the notes under a folder that keeps state. Nothing is made before there is a note.
    pub(super) fn new(state_dir: &Path) -> Spool {
        Spool {
            folder: state_dir.join("releases"),
        }
    }

    /// Notes that the addresses of an owner are to be given back.
    pub(super) fn add(&self, owner: &str) -> Result<(), CniError> {
        let note = || {
            fs::create_dir_all(&self.folder)?;
            File::create(self.folder.join(owner))?.sync_all()?;
            File::open(&self.folder)?.sync_all()
        };
        note().map_err(|error| self.failed(error))
    }

    /// Gives back what is noted.
    pub(super) async fn settle(&self, client: &Client) -> Result<(), CniError> {
        if self.owners()?.is_empty() {
            return Ok(());
        }
        let lock = self.lock()?;
        for owner in self.owners()? {
            delete_all(client, &owner).await?;
            let removed = fs::remove_file(self.folder.join(&owner));
            removed.map_err(|error| self.failed(error))?;
        }
        drop(lock);
        Ok(())
    }

    fn owners(&self) -> Result<Vec<String>, CniError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let owners = names.filter_map(|name| name.into_string().ok());
        Ok(owners.filter(|name| name.starts_with("cni:")).collect())
    }

    /// Waits for whoever settles already. The lock ends with the file.
    fn lock(&self) -> Result<File, CniError> {
        let file = File::open(&self.folder).map_err(|error| self.failed(error))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| self.failed(error))?;
        Ok(file)
    }

    fn failed(&self, error: impl std::fmt::Display) -> CniError {
        CniError::new(
            Code::Io,
            format!("{}: {error}", self.folder.display()),
            "addresses that are to be given back are kept there",
        )
    }
}
