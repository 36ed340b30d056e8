//! Reaching the router from commands, and waiting for it.

use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::CliError;
use super::output::complain;
use web::client::{Answer, Client};
use web::endpoint::Endpoint;

/// A request that takes longer than this is explained to the user.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Default time to wait for the router.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Additional time that a command waits beyond the router's limit, so that it receives the router's
/// reason.
const GRACE: Duration = Duration::from_secs(5);

/// Options for reaching the router.
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
    /// Time to wait for the router, like 30s [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Router")]
    timeout: Option<String>,
}

/// The router of this host.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    pub(crate) client: Client,
    /// Maximum time for the router to answer a request.
    pub(crate) time_max: Duration,
}

impl RouterArgs {
    /// Returns the address as it was given.
    pub(crate) fn address(&self) -> &str {
        &self.http_addr
    }

    pub(crate) fn router(&self) -> Result<Router, CliError> {
        self.patient_router(TIME_MAX)
    }

    /// Returns the router, of which as much is asked that it may take this long unless the user
    /// says otherwise.
    pub(crate) fn patient_router(&self, time_max: Duration) -> Result<Router, CliError> {
        let time_max = match &self.timeout {
            None => time_max,
            Some(text) => report::time::duration(text)
                .map_err(|error| CliError::usage(format!("--timeout: {error}")))?,
        };
        let address = Endpoint::parse(&self.http_addr)
            .and_then(|address| address.ok_or_else(|| "must not be empty".to_owned()))
            .map_err(|error| CliError::usage(format!("--http-addr: {error}")))?;
        Ok(Router {
            client: Client::new(address, time_max + GRACE),
            time_max,
        })
    }

    pub(crate) fn client(&self) -> Result<Client, CliError> {
        Ok(self.router()?.client)
    }
}

impl Router {
    /// Sends a request that may have to wait for other peers, and says why if it does. `owner`
    /// is whom the request is for.
    pub(crate) async fn ask_waiting(
        &self,
        method: Method,
        path: &str,
        owner: &str,
    ) -> Result<Answer, CliError> {
        let json = Some(("accept", "application/json"));
        let request = self.client.request(method, path, json, "");
        tokio::pin!(request);
        let mut told = None;
        loop {
            tokio::select! {
                answer = &mut request => return Ok(answer?),
                () = tokio::time::sleep(PATIENCE) => {
                    let reason = self.waits_for(owner).await;
                    if reason.is_some() && reason != told {
                        complain(&format!("weft: waiting: {}", reason.clone().unwrap_or_default()));
                        told = reason;
                    }
                }
            }
        }
    }

    /// Returns what the router says a request for `owner` waits for.
    async fn waits_for(&self, owner: &str) -> Option<String> {
        let text = self.client.get_json("/status/weft").await.ok()?.ok().ok()?;
        let status: Value = serde_json::from_str(&text).ok()?;
        let ipam = &status["ipam"];
        let waiting = ["pending_allocates", "pending_claims"].map(|list| ipam[list].as_array());
        let ours = waiting
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry["id"] == owner);
        if let Some(entry) = ours {
            return Some(entry["waits_for"].as_str()?.to_owned());
        }
        let mut takeovers = ipam["takeovers"].as_array().into_iter().flatten();
        let takeover = takeovers.find(|t| t["peer"] == owner || t["nickname"] == owner)?;
        let waiting = takeover["waiting"].as_array().into_iter().flatten();
        let waiting: Vec<&str> = waiting.filter_map(Value::as_str).collect();
        Some(match waiting.as_slice() {
            [] => "until nothing that it sent can be under way any more".to_owned(),
            peers => format!(
                "nothing that {owner} sent may be under way any more, and everyone must be heard; \
                 not heard yet: {}",
                peers.join(", ")
            ),
        })
    }
}
