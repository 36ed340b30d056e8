//! How others talk to the control loop.

use tokio::sync::{mpsc, oneshot};

use super::Control;
use super::client::{Client, Inbox};
use super::request::Stopped;

/// Calls that wait for the loop; who makes one more waits.
const CALLS_MAX: usize = 256;

/// Something to be done by the loop.
pub type Call = Box<dyn FnOnce(&mut Control) + Send>;

/// A way to the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
    client: Client,
}

impl Handle {
    /// A handle, and where its calls and requests come out.
    pub fn new() -> (Handle, mpsc::Receiver<Call>, Inbox) {
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let (client, inbox) = Client::new();
        (Handle { calls, client }, called, inbox)
    }

    /// The typed way to the loop.
    pub fn client(&self) -> &Client {
        &self.client
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
