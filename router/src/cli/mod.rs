//! The commands of `weft`: one file each.

pub mod flags;

mod address;
mod attach;
mod demo;
mod error;
mod expose;
mod launch;
mod mesh;
mod output;
mod reset;
mod status;

use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use error::CliError;
pub(crate) use output::Output;

use crate::config::{self, Listen};
use crate::http::client::Client;

/// A router for container networks.
///
/// weft joins the hosts that run it, and hosts that run Weave Net 2.8.1, to one mesh. Containers
/// attached on any host share one Ethernet, keep their addresses when they move, and are
/// encrypted between hosts when a password is set.
#[derive(Parser, Debug)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "FIRST STEPS:
  weft demo                                a whole mesh on this machine, then removed again
  weft launch                              on the first host
  weft launch --password P HOST1           on the others
  weft attach PID                          put a container on the network
  weft status connections                  see the mesh")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How commands find the router.
#[derive(Args, Clone, Debug)]
pub(crate) struct RouterArgs {
    /// Address or socket path of the router's control interface
    #[arg(
        long,
        env = "WEAVE_HTTP_ADDR",
        default_value = "127.0.0.1:6784",
        value_name = "ADDR",
        help_heading = "Router"
    )]
    http_addr: String,
    /// How long to wait for the router, like 30s
    #[arg(
        long,
        default_value = "60s",
        value_name = "TIME",
        help_heading = "Router"
    )]
    timeout: String,
}

impl RouterArgs {
    pub(crate) fn timeout(&self) -> Result<Duration, CliError> {
        config::duration(&self.timeout).map_err(|e| CliError::usage(format!("--timeout: {e}")))
    }

    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let address = Listen::parse(&self.http_addr)
            .and_then(|address| address.ok_or_else(|| "must not be empty".to_owned()))
            .map_err(|error| CliError::usage(format!("--http-addr: {error}")))?;
        Ok(Client::new(address, self.timeout()?))
    }
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Launch(Box<flags::LaunchFlags>),
    Status(status::StatusArgs),
    Report(status::ReportArgs),
    Connect(mesh::ConnectArgs),
    Forget(mesh::ForgetArgs),
    Attach(attach::AttachArgs),
    Detach(attach::DetachArgs),
    Ps(attach::PsArgs),
    Expose(expose::ExposeArgs),
    Hide(expose::HideArgs),
    Stop(mesh::StopArgs),
    Reset(reset::ResetArgs),
    Version(status::VersionArgs),
    Completions(output::CompletionArgs),
    Man(output::ManArgs),
}

/// Runs the command line `args`, the program's name first.
pub async fn run(args: impl Iterator<Item = String>) -> Result<(), CliError> {
    let cli = Cli::try_parse_from(args.map(long_form))?;
    let out = Output::standard();
    match cli.command {
        Command::Demo(args) => args.run(&out).await,
        Command::Launch(flags) => launch::run(&flags, &out).await,
        Command::Status(args) => args.run(&out).await,
        Command::Report(args) => args.run(&out).await,
        Command::Connect(args) => args.run().await,
        Command::Forget(args) => args.run().await,
        Command::Attach(args) => args.run(&out).await,
        Command::Detach(args) => args.run(&out).await,
        Command::Ps(args) => args.run(&out).await,
        Command::Expose(args) => args.run(&out).await,
        Command::Hide(args) => args.run(&out).await,
        Command::Stop(args) => args.run(&out).await,
        Command::Reset(args) => args.run(&out).await,
        Command::Version(args) => args.run(&out).await,
        Command::Completions(args) => args.run(&out, Cli::command()),
        Command::Man(args) => args.run(&out, Cli::command()),
    }
}

/// The original's script took some long flags with one dash.
fn long_form(arg: String) -> String {
    const ONE_DASH: [&str; 3] = ["-password", "-port", "-iprange"];
    if ONE_DASH.contains(&arg.as_str()) {
        format!("-{arg}")
    } else {
        arg
    }
}
