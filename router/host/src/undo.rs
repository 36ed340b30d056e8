//! Set-up as a list of reversible steps.

use kernel::error::NetError;

/// Undoes the steps that were taken, in reverse, unless the whole is committed.
///
/// ```
/// use host::undo::Rollback;
///
/// # use std::sync::atomic::{AtomicU32, Ordering};
/// let done = AtomicU32::new(1);
/// let mut rollback = Rollback::new();
/// rollback.on_failure(|| {
///     done.store(0, Ordering::Relaxed);
///     Ok(())
/// });
/// drop(rollback);
/// assert_eq!(done.into_inner(), 0);
/// ```
#[derive(Default)]
pub struct Rollback<'a> {
    steps: Vec<Box<dyn FnOnce() -> Result<(), NetError> + Send + 'a>>,
}

impl<'a> Rollback<'a> {
    /// Nothing done, nothing to undo.
    pub const fn new() -> Rollback<'a> {
        Rollback { steps: Vec::new() }
    }

    /// Says how to undo the step that was just taken.
    pub fn on_failure(&mut self, undo: impl FnOnce() -> Result<(), NetError> + Send + 'a) {
        self.steps.push(Box::new(undo));
    }

    /// Keeps what was done.
    pub fn commit(mut self) {
        self.steps.clear();
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        while let Some(undo) = self.steps.pop() {
            if let Err(error) = undo() {
                tracing::warn!(%error, "a step of a failed set-up could not be undone");
            }
        }
    }
}

/// Collects the failures of steps of which each is to be tried.
#[derive(Debug, Default)]
pub struct Failures {
    errors: Vec<NetError>,
}

impl Failures {
    /// Keeps the error, if any, and returns the value, if any.
    pub fn collect<T>(&mut self, result: Result<T, NetError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    /// Returns all errors as one.
    pub fn into_result(mut self) -> Result<(), NetError> {
        match self.errors.len() {
            0 => Ok(()),
            1 => Err(self.errors.remove(0)),
            _ => Err(NetError::Several(self.errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn undoes_in_reverse_unless_committed() {
        let log = Mutex::new(Vec::new());
        let mut rollback = Rollback::new();
        for step in 1..=3 {
            let log = &log;
            rollback.on_failure(move || {
                log.lock().unwrap().push(step);
                Err(NetError::BadName {
                    name: String::new(),
                })
            });
        }
        drop(rollback);
        assert_eq!(*log.lock().unwrap(), [3, 2, 1]);

        let mut rollback = Rollback::new();
        rollback.on_failure(|| {
            log.lock().unwrap().push(9);
            Ok(())
        });
        rollback.commit();
        assert_eq!(*log.lock().unwrap(), [3, 2, 1]);
    }
}
