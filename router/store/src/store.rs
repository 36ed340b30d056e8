//! Durable state: records in one data base file, written in atomic batches.
//!
//! A thread of its own commits; batches that arrive while it syncs are committed together by the
//! next sync, so many decisions cost one. Every batch is answered, in order, once it is on disk
//! or could not be put there. One that could not fails for itself: the others of its sync are
//! tried again without it.
//!
//! Batches of [`Store::save`] may build on each other. After the failure of one of these all
//! further ones fail as well, until whoever hands them in has seen the failure and calls
//! [`Store::resume`]: a batch must not be saved that was made in the belief that the one before it
//! was. Batches of [`Store::save_alone`] neither cause that nor suffer from it.

use crate::file;
use boundary::records::{Change, Done, Record, Records, StoreError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// State found at opening.
#[derive(Debug)]
pub struct Opened {
    /// The store, ready to save.
    pub store: Store,
    /// All records, in the order of their keys.
    pub records: Vec<Record>,
    /// A damaged file that was put aside under this path, if there was one.
    pub damaged: Option<PathBuf>,
}

/// Requests to the store's thread.
enum Job {
    /// Save a batch.
    Save(Batch),
    /// Try batches in order again after a failure.
    Resume,
}

struct Batch {
    changes: Vec<Change>,
    /// Whether it builds on those before it that say so, too.
    in_order: bool,
    /// Is told whether it was saved.
    done: Done,
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

    /// Saves a batch whole or not at all, then calls `done` from the store's thread. It was made
    /// in the belief that all earlier ones of this call are saved: after one that failed, the
    /// others fail until [`Store::resume`].
    pub fn save(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.hand_in(Batch {
            changes,
            in_order: true,
            done: Box::new(done),
        });
    }

    /// As [`Store::save`], for a batch to which it does not matter whether others were saved.
    pub fn save_alone(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.hand_in(Batch {
            changes,
            in_order: false,
            done: Box::new(done),
        });
    }

    fn hand_in(&self, batch: Batch) {
        let Some(jobs) = &self.jobs else { return };
        if let Err(unsent) = jobs.send(Job::Save(batch))
            && let Job::Save(batch) = unsent.0
        {
            (batch.done)(Err(StoreError::Closed));
        }
    }

    /// Lets batches in order that are handed in from here on be tried again after a failure.
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

    fn save_alone(&self, changes: Vec<Change>, done: Done) {
        Store::save_alone(self, changes, done);
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
    let mut broken: Option<StoreError> = None;
    while let Ok(first) = inbox.recv() {
        let mut batches = Vec::new();
        for job in std::iter::once(first).chain(inbox.try_iter()) {
            match (job, &broken) {
                (Job::Save(batch), Some(error)) if batch.in_order => {
                    (batch.done)(Err(error.clone()));
                }
                (Job::Save(batch), _) => batches.push(batch),
                (Job::Resume, _) => broken = None,
            }
        }
        if !batches.is_empty() {
            commit(&mut file, batches, &mut broken);
        }
    }
}

/// Saves batches with one sync, or each by itself where that fails. Sets `broken` if one in order
/// could not be saved.
fn commit(file: &mut file::File, batches: Vec<Batch>, broken: &mut Option<StoreError>) {
    let result = file.commit(batches.iter().flat_map(|batch| &batch.changes));
    let settled = match &result {
        Ok(()) => true,
        // What is on the disk is not known, so nothing is tried over it.
        Err(StoreError::Uncertain { .. }) => true,
        Err(_) => batches.len() == 1,
    };
    for batch in batches {
        let saved = match &*broken {
            _ if settled => result.clone(),
            Some(error) if batch.in_order => Err(error.clone()),
            _ => file.commit(batch.changes.iter()),
        };
        if batch.in_order && broken.is_none() {
            *broken = saved.clone().err();
        }
        (batch.done)(saved);
    }
}

#[cfg(test)]
mod tests;
