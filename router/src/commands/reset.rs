//! `weft reset`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::attach::{HostArgs, store_files};
use super::{CliError, Output, RouterArgs, stopping};
use crate::flags::PLUGIN_SOCKET;
use host::blocking::blocking;
use host::bridge;
use host::lock;
use host::resolv_conf;
use host::rules::HostRules;
use kernel::netlink::Netlink;
use web::client::{Client, ClientError};

/// Time for gossip to carry the addresses to other peers.
const HAND_OVER_TIME: Duration = Duration::from_millis(500);

/// Removes this host from the network for good: gives its addresses to another peer, stops the
/// router, and removes every device, rule and file that weft made.
///
/// May be repeated, and works when no router runs.
#[derive(Args, Debug)]
pub(crate) struct ResetArgs {
    /// Path prefix of the state files
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/weft/",
        env = "DB_PREFIX"
    )]
    db_prefix: PathBuf,
    /// Accepted for compatibility; reset also works if no router runs
    #[arg(long, hide = true)]
    force: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    router: RouterArgs,
}

impl ResetArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        // Without it the router would stop, and all else would stay.
        if !rustix::process::geteuid().is_root() {
            return Err(CliError::failed(
                "removing devices and rules takes root: run it again with sudo",
            ));
        }
        let client = self.router.client()?;
        // While the plugin answers, which Docker asks about it.
        if let Ok(answer) = client.delete("/docker/networks").await
            && answer.status.is_success()
        {
            for line in answer.body.lines() {
                out.line(line)?;
            }
        }
        let running = hand_over(&client, out).await?;
        if running {
            stopping::stop(&client).await?;
        } else if let Some(holder) = lock::holder().map_err(CliError::failed)? {
            return Err(CliError::failed(format!(
                "a router runs in this network namespace ({holder}) and does not answer; name its \
                 control interface with --http-addr, or end that process first"
            )));
        }
        let (proc, bridge) = (self.host.proc_path.clone(), self.host.weave_bridge.clone());
        let removed = blocking(move || {
            // While it can still be seen who was attached.
            resolv_conf::restore_all(&bridge, &proc)?;
            let netlink = Netlink::open()?;
            let removed = bridge::remove_all(&netlink, &proc)?;
            let rules = HostRules::remove()?;
            Ok::<_, kernel::error::NetError>((removed, rules))
        });
        let (devices, rules) = removed.await.map_err(CliError::failed)?;
        for device in devices {
            out.line(&format!("removed device {device}"))?;
        }
        if rules {
            out.line("removed packet filter rules")?;
        }
        let left = store_files(&self.db_prefix)
            .into_iter()
            .chain(stale_socket());
        for file in left {
            if remove_file(&file)? {
                out.line(&format!("removed {}", file.display()))?;
            }
        }
        if !running {
            out.line(
                "no router was running, so the addresses of this host were not given to another \
                 peer; if it had some, run 'weft rmpeer' on another host",
            )?;
        }
        Ok(())
    }
}

/// Asks a running router to give its addresses away. Tells whether one runs.
async fn hand_over(client: &Client, out: &Output) -> Result<bool, CliError> {
    match client.delete("/peer").await {
        Ok(answer) if answer.status.as_u16() == 404 => Ok(true),
        Ok(answer) => {
            answer.ok()?;
            out.line("gave the addresses of this host to another peer, if there is one")?;
            tokio::time::sleep(HAND_OVER_TIME).await;
            Ok(true)
        }
        Err(ClientError::NotRunning { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the socket of Docker's plugin, if a router that was killed has left it.
fn stale_socket() -> Option<PathBuf> {
    let path = PathBuf::from(PLUGIN_SOCKET);
    let refused = std::os::unix::net::UnixStream::connect(&path).err()?;
    (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(path)
}

fn remove_file(path: &Path) -> Result<bool, CliError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CliError::failed(format!(
            "cannot remove {}: {error}",
            path.display()
        ))),
    }
}
