//! How many pages are drawn at the same time.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Pages that are drawn at the same time; further ones wait.
const PAGES_MAX: usize = 2;
/// Templates that are executed at the same time, which may take seconds.
const TEMPLATES_MAX: usize = 1;

/// Who may draw at the moment.
#[derive(Clone, Debug)]
pub struct DrawingSlots {
    pub(super) pages: Arc<Semaphore>,
    pub(super) templates: Arc<Semaphore>,
}

impl Default for DrawingSlots {
    fn default() -> DrawingSlots {
        DrawingSlots {
            pages: Arc::new(Semaphore::new(PAGES_MAX)),
            templates: Arc::new(Semaphore::new(TEMPLATES_MAX)),
        }
    }
}
