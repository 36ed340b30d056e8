//! `weft stop`, and how commands stop a router and wait for its end.

use std::time::Duration;

use clap::Args;

use super::{CliError, Output, RouterArgs};
use host::lock;
use web::client::{Client, ClientError};

/// Maximum time for a router to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// Interval between checks whether it has stopped.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Stops the router on this host and waits until it has ended. Containers keep their addresses and
/// can reach each other on the host; the next launch reconnects them to other hosts.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    router: RouterArgs,
}

impl StopArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        stop(&self.router.client()?).await?;
        out.line("stopped; containers stay attached and the next 'weft launch' takes them up")
    }
}

/// Stops the router and waits until its process has ended, and with it its hold on ports, devices
/// and the store.
pub(super) async fn stop(client: &Client) -> Result<(), CliError> {
    let before = lock::holder().map_err(CliError::failed)?;
    client.post("/stop", "").await?.ok()?;
    let wait = async {
        // The lock of this namespace is free once its process has ended. A router elsewhere
        // is only seen to answer no more.
        while before.is_some() && lock::holder().map_err(CliError::failed)? == before {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        while !is_gone(client).await {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    };
    let late = || CliError::failed("the router did not stop; end its process and try again");
    tokio::time::timeout(STOP_TIME_MAX, wait)
        .await
        .map_err(|_| late())?
}

async fn is_gone(client: &Client) -> bool {
    matches!(
        client.get("/status").await,
        Err(ClientError::NotRunning { .. })
    )
}
