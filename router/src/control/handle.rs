//! How others talk to the control loop.

use tokio::sync::{mpsc, oneshot};

use super::Control;

/// Calls that wait for the loop; who makes one more waits.
const CALLS_MAX: usize = 256;

/// Something to be done by the loop.
pub type Call = Box<dyn FnOnce(&mut Control) + Send>;

/// The loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router is stopping")]
pub struct Stopped;

/// A way to the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
}

impl Handle {
    /// A handle, and where its calls come out.
    pub fn new() -> (Handle, mpsc::Receiver<Call>) {
        let (calls, inbox) = mpsc::channel(CALLS_MAX);
        (Handle { calls }, inbox)
    }

    /// Has `call` run on the loop, from a thread that may wait.
    pub(super) fn post(&self, call: Call) -> Result<(), Stopped> {
        self.calls.blocking_send(call).map_err(|_| Stopped)
    }

    /// Runs `call` on the loop and waits for what it returns.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Control) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, wait) = oneshot::channel();
        let call: Call = Box::new(move |control| {
            // Whoever asked may have gone away.
            let _ = answer.send(call(control));
        });
        self.calls.send(call).await.map_err(|_| Stopped)?;
        wait.await.map_err(|_| Stopped)
    }
}
