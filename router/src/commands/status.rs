//! `weft status`, `weft report` and `weft version`.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{CliError, Output, RouterArgs};
use web::client::encode;

/// Shows the state of the router: the whole, or one part of it.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft status
  weft status connections
  weft status connections --json | jq '.[].overlay'")]
pub(crate) struct StatusArgs {
    /// The part to show
    part: Option<Part>,
    /// Print JSON, which has more detail than the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: RouterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Addresses this router was told to connect to
    Targets,
    /// Connections to other routers, and attempts
    Connections,
    /// All routers of the mesh
    Peers,
    /// Who owns which addresses
    Ipam,
    /// Names of containers
    Dns,
    /// Overlays, offloads and counters of this router
    Weft,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Targets => "targets",
            Part::Connections => "connections",
            Part::Peers => "peers",
            Part::Ipam => "ipam",
            Part::Dns => "dns",
            Part::Weft => "weft",
        }
    }
}

impl StatusArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        let client = self.router.client()?;
        if self.json {
            let text = client.get_json("/status/weft").await?.ok()?;
            let mut value: Value = serde_json::from_str(&text).map_err(CliError::failed)?;
            if let Some(part) = self.part.filter(|part| !matches!(part, Part::Weft)) {
                value = value.get(part.name()).cloned().unwrap_or(Value::Null);
            }
            return out.json(&value);
        }
        let path = match self.part {
            None => "/status".to_owned(),
            Some(part) => format!("/status/{}", part.name()),
        };
        let answer = client.get(&path).await?;
        // 503 means that the router is still starting; its page is worth showing all the same.
        if answer.status.as_u16() == 503 {
            out.text(&answer.body)
        } else {
            out.text(&answer.ok()?)
        }
    }
}

/// Prints the whole state as JSON, or what a Go template makes of it.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft report
  weft report -f '{{.Router.Name}}'
  weft report -f '{{range .Router.Connections}}{{.Address}} {{.State}}{{println}}{{end}}'
  weft report -f '{{json .IPAM.Entries}}'")]
pub(crate) struct ReportArgs {
    /// Go template: fields, range, if, with, printf, json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ReportArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        let client = self.router.client()?;
        match &self.format {
            None => out.line(&client.get_json("/report").await?.ok()?),
            Some(format) => {
                let path = format!("/report?format={}", encode(format));
                out.line(&client.get(&path).await?.ok()?)
            }
        }
    }
}

/// Prints the versions of this program and of the router that runs.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    router: RouterArgs,
}

impl VersionArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        out.line(&format!("weft {}", env!("CARGO_PKG_VERSION")))?;
        let client = self.router.client()?;
        match client.get_json("/status/weft").await {
            Ok(answer) => {
                let value: Value = serde_json::from_str(&answer.ok()?).map_err(CliError::failed)?;
                let version = value
                    .get("version")
                    .and_then(Value::as_str)
                    .unwrap_or("unknown");
                out.line(&format!("router {version}"))
            }
            Err(_) => out.line("router not running"),
        }
    }
}
