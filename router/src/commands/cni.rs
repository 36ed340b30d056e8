//! `weft cni` and `weft setup-cni`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CliError, Output, RouterArgs};
use cni::plugin::{self, Plugin};
use cni::setup::Setup;
use web::client::ClientError;

/// Interval between checks whether the router is ready.
const READY_POLL: Duration = Duration::from_millis(100);

/// Runs the CNI plugin, as the program weft-net does.
///
/// Runtimes call the plugin with its configuration on standard input and everything else in the
/// environment; this command is for trying it by hand.
#[derive(Args, Debug)]
pub(crate) struct CniArgs {
    /// Run as the plugin that only allocates addresses (weft-ipam)
    #[arg(long)]
    ipam: bool,
}

impl CniArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let plugin = if self.ipam { Plugin::Ipam } else { Plugin::Net };
        run_plugin(plugin, out).await
    }
}

/// Does one call of a container runtime.
pub(super) async fn run_plugin(plugin: Plugin, out: &Output) -> Result<(), CliError> {
    let (text, success) = plugin::run(plugin).await;
    out.text(&text)?;
    if success {
        Ok(())
    } else {
        Err(CliError::told())
    }
}

/// Installs the CNI plugin and a network configuration for the container runtimes of this host
/// (Kubernetes, containerd, podman).
///
/// Waits until the router is ready, then writes the plugin, links to it, and the network
/// configuration. Weave Net's names of the plugin are linked to it as well; files that were there
/// are kept and restored by --remove.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft setup-cni
  weft setup-cni --sticky        pods keep their addresses on any host
  weft setup-cni --remove")]
pub(crate) struct SetupCniArgs {
    /// Folder in which the runtime looks for plugins
    #[arg(
        long,
        value_name = "PATH",
        env = "WEAVE_CNI_PLUGIN_DIR",
        default_value = "/opt/cni/bin"
    )]
    bin_dir: PathBuf,
    /// Folder in which the runtime looks for network configurations
    #[arg(long, value_name = "PATH", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Name of the network
    #[arg(long, default_value = "weft")]
    name: String,
    /// Let pods keep their addresses on any host
    #[arg(long)]
    sticky: bool,
    /// Name of the bridge
    #[arg(long, value_name = "NAME", default_value = "weave")]
    weave_bridge: String,
    /// Remove everything that this command installed
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    router: RouterArgs,
}

impl SetupCniArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c);
        if self.name.is_empty() || self.name.starts_with(['.', '-', '_']) || self.name.contains(odd)
        {
            return Err(CliError::usage(format!(
                "--name: {:?} is no name of a network: letters, digits, '_', '.' and '-'",
                self.name
            )));
        }
        let address = self.router.address();
        let setup = Setup {
            bin_dir: self.bin_dir,
            conf_dir: self.conf_dir,
            name: self.name,
            sticky: self.sticky,
            http_addr: (address != "127.0.0.1:6784").then(|| address.to_owned()),
            bridge: (self.weave_bridge != "weave").then_some(self.weave_bridge),
        };
        if self.remove {
            for path in setup.remove().map_err(CliError::failed)? {
                out.line(&format!("removed {}", path.display()))?;
            }
            return Ok(());
        }
        wait_until_ready(&self.router).await?;
        let written = setup.install().await.map_err(|error| {
            CliError::failed(format!(
                "cannot install to {} and {}: {error}",
                setup.bin_dir.display(),
                setup.conf_dir.display()
            ))
        })?;
        for path in written {
            out.line(&format!("wrote {}", path.display()))?;
        }
        Ok(())
    }
}

/// Waits for a router that can attach containers; without one, no runtime may find the network.
async fn wait_until_ready(router: &RouterArgs) -> Result<(), CliError> {
    let router = router.router()?;
    let deadline = tokio::time::Instant::now() + router.time_max;
    loop {
        let error = match router.client.get("/status").await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(_) => CliError::failed("the router is not ready; nothing was installed"),
            Err(error @ ClientError::NotRunning { .. }) => error.into(),
            Err(error) => return Err(error.into()),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(READY_POLL).await;
    }
}
