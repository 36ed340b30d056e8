//! `weft connect`, `weft forget` and `weft stop`.

use clap::Args;

use super::{CliError, Output, RouterArgs};
use web::client::encode_form;

/// Adds peers to connect to; the router keeps trying, also after a restart with --resume.
#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// Replace the peers given before
    #[arg(long)]
    replace: bool,
    /// HOST or HOST:PORT
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ConnectArgs {
    pub(crate) async fn run(&self) -> Result<(), CliError> {
        if self.peers.is_empty() && !self.replace {
            return Err(CliError::usage(
                "give peers to connect to, or --replace to forget all",
            ));
        }
        let mut fields: Vec<(&str, &str)> = vec![("replace", bool_text(self.replace))];
        fields.extend(self.peers.iter().map(|peer| ("peer", peer.as_str())));
        let answer = self
            .router
            .client()?
            .post("/connect", &encode_form(fields))
            .await?;
        answer.ok()?;
        Ok(())
    }
}

/// Stops trying to connect to peers; connections that exist stay.
#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// As given to connect or launch
    #[arg(value_name = "PEER", required = true)]
    peers: Vec<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ForgetArgs {
    pub(crate) async fn run(&self) -> Result<(), CliError> {
        let fields = self.peers.iter().map(|peer| ("peer", peer.as_str()));
        self.router
            .client()?
            .post("/forget", &encode_form(fields))
            .await?
            .ok()?;
        Ok(())
    }
}

/// Stops the router on this host. Containers keep their addresses and reach each other on the
/// host; the next launch reconnects them to the others.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    router: RouterArgs,
}

impl StopArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        self.router.client()?.post("/stop", "").await?.ok()?;
        out.line("stopped; containers stay attached and the next 'weft launch' takes them up")
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
