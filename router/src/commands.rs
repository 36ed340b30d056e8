//! The commands of `weft`: one file each.

mod address;
mod addresses;
mod attach;
mod bench;
mod cni;
mod demo;
mod dns;
mod error;
mod expose;
mod genpass;
mod launch;
mod lease;
mod mesh;
mod naming;
mod output;
mod replaced;
mod reset;
mod router;
mod status;
mod stopping;

use clap::{CommandFactory, Parser, Subcommand};

use crate::flags::LaunchFlags;
pub use error::CliError;
pub(crate) use output::Output;
pub(crate) use router::{Router, RouterArgs};

use ::cni::plugin::Plugin;

/// A router for container networks.
///
/// weft joins the hosts that run it, and hosts that run Weave Net 2.8.1, into one mesh. Containers
/// attached on any host share one Ethernet and can keep their addresses when they move. With a
/// password, their traffic between hosts is encrypted.
#[derive(Parser, Debug)]
#[command(
    name = "weft",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "FIRST STEPS:
  weft demo                                   try a whole mesh on this machine
  weft genpass > FILE                         make a password; copy FILE to all hosts
  weft launch --password-file FILE            on the first host
  weft launch --password-file FILE HOST1      on the others
  weft attach PID                             attach a container to the network
  weft status connections                     show the connections of the mesh")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Launch(Box<LaunchFlags>),
    Status(status::StatusArgs),
    Report(status::ReportArgs),
    Connect(mesh::ConnectArgs),
    Forget(mesh::ForgetArgs),
    Attach(attach::AttachArgs),
    Detach(attach::DetachArgs),
    Ps(attach::PsArgs),
    Expose(expose::ExposeArgs),
    Hide(expose::HideArgs),
    DnsAdd(dns::DnsAddArgs),
    DnsRemove(dns::DnsRemoveArgs),
    DnsLookup(dns::DnsLookupArgs),
    DnsArgs(dns::DnsArgsArgs),
    Prime(addresses::PrimeArgs),
    Rmpeer(addresses::RmpeerArgs),
    Lease(lease::LeaseArgs),
    SetupCni(cni::SetupCniArgs),
    #[command(hide = true)]
    Cni(cni::CniArgs),
    Stop(stopping::StopArgs),
    Reset(reset::ResetArgs),
    Genpass(genpass::GenpassArgs),
    Version(status::VersionArgs),
    Completions(output::CompletionArgs),
    Man(output::ManArgs),
}

/// Runs the command line `args`, the program's name first. Container runtimes call us by the
/// names of plugins and without arguments.
pub async fn run(args: impl Iterator<Item = String>) -> Result<(), CliError> {
    let mut args = args.peekable();
    let out = Output::standard();
    if let Some(plugin) = args.peek().and_then(|program| Plugin::of(program)) {
        return cni::run_plugin(plugin, &out).await;
    }
    let args: Vec<String> = args.map(long_form).collect();
    if let Some(error) = args.get(1).and_then(|word| replaced::explain(word)) {
        return Err(error);
    }
    let cli = Cli::try_parse_from(args)?;
    match cli.command {
        Command::Demo(args) => args.run(&out).await,
        Command::Bench(args) => args.run(&out).await,
        Command::Launch(flags) => launch::run(&flags, &out).await,
        Command::Status(args) => args.run(&out).await,
        Command::Report(args) => args.run(&out).await,
        Command::Connect(args) => args.run(&out).await,
        Command::Forget(args) => args.run().await,
        Command::Attach(args) => args.run(&out).await,
        Command::Detach(args) => args.run(&out).await,
        Command::Ps(args) => args.run(&out).await,
        Command::Expose(args) => args.run(&out).await,
        Command::Hide(args) => args.run(&out).await,
        Command::DnsAdd(args) => args.run().await,
        Command::DnsRemove(args) => args.run().await,
        Command::DnsLookup(args) => args.run(&out).await,
        Command::DnsArgs(args) => args.run(&out).await,
        Command::Prime(args) => args.run().await,
        Command::Rmpeer(args) => args.run(&out).await,
        Command::Lease(args) => args.run(&out).await,
        Command::SetupCni(args) => args.run(&out).await,
        Command::Cni(args) => args.run(&out).await,
        Command::Stop(args) => args.run(&out).await,
        Command::Reset(args) => args.run(&out).await,
        Command::Genpass(args) => args.run(&out),
        Command::Version(args) => args.run(&out).await,
        Command::Completions(args) => args.run(&out, Cli::command()),
        Command::Man(args) => args.run(&out, Cli::command()),
    }
}

/// Turns long flags that Weave Net's script took with one dash into those with two.
fn long_form(arg: String) -> String {
    const ONE_DASH: [&str; 3] = ["-password", "-port", "-iprange"];
    if ONE_DASH.contains(&arg.as_str()) {
        format!("-{arg}")
    } else {
        arg
    }
}
