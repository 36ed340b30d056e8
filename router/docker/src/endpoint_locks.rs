//! One call at a time for one endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The keys that are being worked on.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    turns: Mutex<BTreeMap<String, Turn>>,
}

impl Turns {
    /// Waits until nobody else works on `id`, and keeps others off until the guard is dropped.
    pub(crate) async fn take(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(id.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}
