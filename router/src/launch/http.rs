//! The HTTP interface, on a thread of its own, so that it answers also while the control loop's
//! thread is busy.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use api::routes::{Scope, router};
use api::services::Services;
use tokio::sync::watch;
use web::listener::{DetachedListener, Listener};

use super::LaunchError;

/// Maximum time for which the end of the router waits for requests to be answered.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// The running interface.
#[derive(Debug)]
pub(super) struct HttpThread {
    /// Dropped to end it.
    end: watch::Sender<()>,
    /// Closed once it has ended.
    ended: mpsc::Receiver<()>,
}

impl HttpThread {
    /// Serves what each listener is for.
    pub(super) fn start(
        listeners: Vec<(Listener, Scope)>,
        services: Services,
    ) -> Result<HttpThread, LaunchError> {
        let detached: Result<Vec<(DetachedListener, Scope)>, _> = listeners
            .into_iter()
            .map(|(listener, scope)| Ok((listener.detach()?, scope)))
            .collect();
        let detached = detached.map_err(|error: std::io::Error| LaunchError::new(error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LaunchError::new)?;
        let (end, ending) = watch::channel(());
        let (running, ended) = mpsc::channel();
        let serve = move || {
            runtime.block_on(serve(detached, &services, &ending));
            drop(running);
        };
        let thread = thread::Builder::new().name("weft-http".to_owned());
        thread.spawn(serve).map_err(LaunchError::new)?;
        Ok(HttpThread { end, ended })
    }

    /// Takes no more requests, and waits a little for those under way.
    pub(super) fn stop(self) {
        drop(self.end);
        // Whoever has not read the answer by then misses it.
        let _ = self.ended.recv_timeout(ANSWER_TIME_MAX);
    }
}

async fn serve(
    listeners: Vec<(DetachedListener, Scope)>,
    services: &Services,
    ending: &watch::Receiver<()>,
) {
    let mut tasks = Vec::new();
    for (listener, scope) in listeners {
        let routes = router(scope, services.clone());
        let mut ending = ending.clone();
        // Ends with its sender, which is an error to wait for.
        let end = async move { while ending.changed().await.is_ok() {} };
        tasks.push(tokio::spawn(async move {
            let served = match listener.attach() {
                Ok(listener) => listener.serve(routes, end).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!(%error, "an HTTP interface ended");
            }
        }));
    }
    for task in tasks {
        // A task that panicked has said so.
        let _ = task.await;
    }
}
