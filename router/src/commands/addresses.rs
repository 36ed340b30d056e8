//! `weft prime` and `weft rmpeer`.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::router::Router;
use super::{CliError, Output, RouterArgs, mesh};
use web::client::encode;

/// A peer's last messages may be under way for a minute, and others may have to be asked.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(150);

/// Waits until the routers have agreed on the division of addresses.
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

/// Takes over the addresses of a host that is gone for good.
///
/// Run it on one host only, and only for a peer whose host never comes back: addresses still in use
/// there would be allocated again.
#[derive(Args, Debug)]
pub(crate) struct RmpeerArgs {
    /// Names or nicknames, as in 'weft status ipam'
    #[arg(value_name = "PEER", required = true)]
    peers: Vec<String>,
    /// Do not ask whether the host really never comes back
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    router: RouterArgs,
}

impl RmpeerArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        let router = self.router.patient_router(REMOVAL_TIME_MAX)?;
        let report = mesh::report(&router.client).await?;
        for peer in &self.peers {
            check_known(&report, peer)?;
        }
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

/// Returns an error if nobody of this name or nickname is in the mesh or owns addresses.
fn check_known(report: &Value, peer: &str) -> Result<(), CliError> {
    let lists = [
        (&report["Router"]["Peers"], "Name", "NickName"),
        (&report["IPAM"]["Entries"], "Peer", "Nickname"),
    ];
    let mut known = BTreeSet::new();
    for (list, name, nickname) in lists {
        for entry in list.as_array().into_iter().flatten() {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let (name, nickname) = (text(name), text(nickname));
            if [name, nickname].contains(&peer) {
                return Ok(());
            }
            known.insert(format!("{name}({nickname})"));
        }
    }
    Err(CliError::not_found(format!(
        "no peer {peer:?} is known, so nothing was removed; known are {}",
        known.into_iter().collect::<Vec<_>>().join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_peers_that_are_known_are_removed() {
        let report = json!({
            "Router": { "Peers": [{ "Name": "02:00:00:00:00:01", "NickName": "h1" }] },
            "IPAM": { "Entries": [{ "Peer": "02:00:00:00:00:09", "Nickname": "gone" }] },
        });
        for known in ["h1", "02:00:00:00:00:01", "gone", "02:00:00:00:00:09"] {
            assert!(check_known(&report, known).is_ok(), "{known}");
        }
        let error = check_known(&report, "h11").unwrap_err().to_string();
        assert!(
            error.contains("\"h11\"") && error.contains("(gone)"),
            "{error}"
        );
        assert!(check_known(&report, "").is_err());
    }
}
