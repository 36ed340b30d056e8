//! Word from the kernel that network devices come, go or change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use kernel::netlink::LinkMonitor;

/// The changes since somebody last waited for one. A thread of its own listens until this is
/// dropped and another device changes.
pub(super) struct LinkChanges(Arc<Notify>);

impl LinkChanges {
    /// Listens from now on. The error says why the kernel does not tell.
    pub(super) fn follow() -> Result<LinkChanges, String> {
        let monitor = LinkMonitor::open().map_err(|error| error.to_string())?;
        let changed = Arc::new(Notify::new());
        let listener = Arc::downgrade(&changed);
        let tell = move || {
            while monitor.wait().is_ok()
                && let Some(changed) = listener.upgrade()
            {
                changed.notify_one();
            }
        };
        let thread = std::thread::Builder::new().name("weft-links".to_owned());
        thread.spawn(tell).map_err(|error| error.to_string())?;
        Ok(LinkChanges(changed))
    }

    /// Waits for a change, or until so much time has passed.
    pub(super) async fn wait(&self, time_max: Duration) {
        let _ = tokio::time::timeout(time_max, self.0.notified()).await;
    }
}
