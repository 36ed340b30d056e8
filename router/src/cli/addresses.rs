//! `weft prime` and `weft rmpeer`.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use hyper::Method;

use super::router::Router;
use super::{CliError, Output, RouterArgs};
use web::client::encode;

/// A peer's last messages may be under way for a minute, and others may have to be asked.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(150);

/// Waits until the routers have agreed who gives out which addresses.
#[derive(Args, Debug)]
pub(crate) struct PrimeArgs {
    #[command(flatten)]
    router: RouterArgs,
}

impl PrimeArgs {
    pub(crate) async fn run(&self) -> Result<(), CliError> {
        let router = self.router.router()?;
        let path = format!("/ring?timeout={}s", router.time_max.as_secs());
        router.ask_waiting(Method::GET, &path, "").await?.ok()?;
        Ok(())
    }
}

/// Takes over the addresses of a host that is gone for ever.
///
/// Only on one host, and only for a peer whose host never comes back: addresses that it has in
/// use would be given out again.
#[derive(Args, Debug)]
pub(crate) struct RmpeerArgs {
    /// Names or nicknames, as in 'weft status ipam'
    #[arg(value_name = "PEER", required = true)]
    peers: Vec<String>,
    /// The host never comes back; do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    router: RouterArgs,
}

impl RmpeerArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        let router = self.router.patient_router(REMOVAL_TIME_MAX)?;
        for peer in &self.peers {
            let text = match self.remove(&router, peer, self.yes).await? {
                Some(text) => text,
                None => match self.remove(&router, peer, true).await? {
                    Some(text) => text,
                    None => return Err(CliError::failed("the router asks for confirmation again")),
                },
            };
            out.text(&text)?;
        }
        Ok(())
    }

    /// Removes a peer. `None` if the user has just agreed, and it is to be tried again.
    async fn remove(
        &self,
        router: &Router,
        peer: &str,
        confirmed: bool,
    ) -> Result<Option<String>, CliError> {
        let seconds = router.time_max.as_secs();
        let query = format!("confirm={confirmed}&timeout={seconds}s");
        let path = format!("/peer/{}?{query}", encode(peer));
        let answer = router.ask_waiting(Method::DELETE, &path, peer).await?;
        if answer.status.as_u16() == 408 {
            return Err(CliError::failed(format!(
                "{}. The router goes on with it: 'weft status weft' shows how far it is",
                answer.body.trim()
            )));
        }
        if answer.status.as_u16() != 409 {
            return Ok(Some(answer.ok()?));
        }
        if !std::io::stdin().is_terminal() {
            return Err(CliError::failed(answer.body.trim()));
        }
        let mut terminal = std::io::stderr().lock();
        // Nobody can be asked if this fails, and then nothing is removed.
        let _ = write!(
            terminal,
            "{}\nDoes it never come back? [y/N] ",
            answer.body.trim()
        );
        let _ = terminal.flush();
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        if read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes") {
            return Ok(None);
        }
        Err(CliError::failed("nothing was removed"))
    }
}
