//! Durable state: records in one data base file, written in atomic batches.
//!
//! A thread of its own commits; batches that arrive while it syncs are committed together by the
//! next sync, so many decisions cost one. Every batch is answered, in order, once it is on disk
//! or could not be put there. After a failure all further batches fail as well, until whoever
//! hands them in has seen the failure and calls [`Store::resume`]: a batch must not be saved that
//! was made in the belief that the one before it was.

use crate::file;
use boundary::records::{Change, Done, Record, Records, StoreError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What was found at opening.
#[derive(Debug)]
pub struct Opened {
    /// The store, ready to save.
    pub store: Store,
    /// All records, in the order of their keys.
    pub records: Vec<Record>,
    /// A damaged file that was put aside under this path, if there was one.
    pub damaged: Option<PathBuf>,
}

/// What the store's thread is asked to do.
enum Job {
    /// Save a batch, and tell whether that worked.
    Save(Vec<Change>, Done),
    /// Try again after a failure.
    Resume,
}

/// The handle of the store. Dropping it waits until everything handed in is on disk.
#[derive(Debug)]
pub struct Store {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the file, or makes it. A damaged one is kept aside.
    pub fn open(path: &Path) -> Result<Opened, StoreError> {
        let (file, records, damaged) = file::File::open(path)?;
        let (jobs, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("weft-store".into())
            .spawn(move || commit_loop(file, &inbox))
            .map_err(|error| StoreError::Open {
                path: path.display().to_string(),
                error: error.to_string(),
            })?;
        let store = Store {
            jobs: Some(jobs),
            thread: Some(thread),
        };
        Ok(Opened {
            store,
            records,
            damaged,
        })
    }

    /// Saves a batch whole or not at all, then calls `done` from the store's thread.
    pub fn save(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let Some(jobs) = &self.jobs else { return };
        if let Err(unsent) = jobs.send(Job::Save(changes, Box::new(done)))
            && let Job::Save(_, done) = unsent.0
        {
            done(Err(StoreError::Closed));
        }
    }

    /// Lets batches that are handed in from here on be tried again after a failure.
    pub fn resume(&self) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended refuses every batch by itself.
            let _ = jobs.send(Job::Resume);
        }
    }
}

impl Records for Store {
    fn save(&self, changes: Vec<Change>, done: Done) {
        Store::save(self, changes, done);
    }

    fn resume(&self) {
        Store::resume(self);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A store thread that panicked has nothing left to save.
            let _ = thread.join();
        }
    }
}

fn commit_loop(mut file: file::File, inbox: &Receiver<Job>) {
    let mut failure: Option<StoreError> = None;
    while let Ok(first) = inbox.recv() {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for job in std::iter::once(first).chain(inbox.try_iter()) {
            match (job, &failure) {
                (Job::Save(_, done), Some(failure)) => done(Err(failure.clone())),
                (Job::Save(batch, done), None) => {
                    changes.extend(batch);
                    waiting.push(done);
                }
                (Job::Resume, _) => failure = None,
            }
        }
        if waiting.is_empty() {
            continue;
        }
        let result = file.commit(&changes);
        failure = result.clone().err();
        for done in waiting {
            done(result.clone());
        }
    }
}

#[cfg(test)]
mod tests;
