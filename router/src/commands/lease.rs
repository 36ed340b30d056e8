//! `weft lease`.

use std::io::Read;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use serde_json::Value;

use super::{CliError, Output, RouterArgs};
use web::client::{encode, encode_form};

/// Manages addresses that belong to an identity, wherever it runs.
///
/// A container that is attached with an identity has the same address and MAC each time, on any
/// host. The lease outlives the container by the router's --lease-retention.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft lease ls
  weft lease reserve web-1                before the container first runs
  weft lease reserve db --address 10.7.0.53 --pin
  weft lease release web-1                its address may be allocated again
  weft lease export > leases.json         and on another mesh: weft lease import < leases.json")]
pub(crate) struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Subcommand, Debug)]
enum LeaseCommand {
    /// Lists all leases of the mesh
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Shows the leases of one identity
    Show(ShowArgs),
    /// Keeps an address for an identity that has not run yet
    Reserve(ReserveArgs),
    /// Keeps a lease forever, however short addresses are
    Pin(ChooseArgs),
    /// Lets a pinned lease end like others
    Unpin(ChooseArgs),
    /// Ends a lease
    Release(ReleaseArgs),
    /// Prints all leases as JSON, for import
    Export(ExportArgs),
    /// Reserves what an export lists, read from standard input
    Import(ExportArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: RouterArgs,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The identity
    identity: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: RouterArgs,
}

#[derive(Args, Debug)]
struct ReserveArgs {
    /// The identity
    identity: String,
    /// Address to reserve [default: any]
    #[arg(long)]
    address: Option<std::net::Ipv4Addr>,
    /// Subnet of the address [default: the router's default subnet]
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Ipv4Net>,
    /// Never expire the lease
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    router: RouterArgs,
}

/// Which lease is meant, if a name has several.
#[derive(Args, Debug)]
struct ChooseArgs {
    /// The identity
    identity: String,
    /// Only the lease in this subnet
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Ipv4Net>,
    /// Only the lease of this kind: explicit or derived
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ChooseArgs {
    fn query(&self) -> String {
        let subnet = self.subnet.map(|subnet| subnet.to_string());
        let fields = [
            ("subnet", subnet.as_deref()),
            ("kind", self.kind.as_deref()),
        ];
        encode_form(
            fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        )
    }
}

#[derive(Args, Debug)]
struct ReleaseArgs {
    #[command(flatten)]
    choose: ChooseArgs,
    /// Release it even if the host that holds it cannot be reached; that host must not come back
    /// with it
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
struct ExportArgs {
    #[command(flatten)]
    router: RouterArgs,
}

impl LeaseArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        match self.command {
            LeaseCommand::Ls(args) => show(out, &args.router, "/leases", args.json).await,
            LeaseCommand::Show(args) => {
                let path = format!("/leases/{}", encode(&args.identity));
                show(out, &args.router, &path, args.json).await
            }
            LeaseCommand::Reserve(args) => {
                let (subnet, address) = (args.subnet, args.address);
                let subnet = subnet.map(|subnet| subnet.to_string());
                let address = address.map(|address| address.to_string());
                let pin = args.pin.then(|| "true".to_owned());
                let fields = [("subnet", subnet), ("address", address), ("pin", pin)];
                let form: Vec<_> = fields
                    .iter()
                    .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
                    .collect();
                let path = format!("/leases/{}", encode(&args.identity));
                let client = args.router.client()?;
                out.line(&client.put(&path, &encode_form(form)).await?.ok()?)
            }
            LeaseCommand::Pin(args) => {
                let path = format!("/leases/{}/pin?{}", encode(&args.identity), args.query());
                args.router.client()?.post(&path, "").await?.ok()?;
                Ok(())
            }
            LeaseCommand::Unpin(args) => {
                let path = format!("/leases/{}/pin?{}", encode(&args.identity), args.query());
                args.router.client()?.delete(&path).await?.ok()?;
                Ok(())
            }
            LeaseCommand::Release(ReleaseArgs { choose, force }) => {
                let (name, query) = (encode(&choose.identity), choose.query());
                let path = format!("/leases/{name}?force={force}&{query}");
                choose.router.client()?.delete(&path).await?.ok()?;
                Ok(())
            }
            LeaseCommand::Export(args) => show(out, &args.router, "/leases", true).await,
            LeaseCommand::Import(args) => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(CliError::failed)?;
                let client = args.router.client()?;
                out.text(&client.post("/leases", &text).await?.ok()?)
            }
        }
    }
}

async fn show(
    out: &Output,
    router: &RouterArgs,
    path: &str,
    as_json: bool,
) -> Result<(), CliError> {
    let text = router.client()?.get_json(path).await?.ok()?;
    let leases: Value = serde_json::from_str(&text).map_err(CliError::failed)?;
    if as_json {
        return out.json(&leases);
    }
    let text = |lease: &Value, key: &str| lease[key].as_str().unwrap_or_default().to_owned();
    for lease in leases.as_array().into_iter().flatten() {
        let holder = match lease["holder_nickname"].as_str() {
            Some(nickname) => format!("{}({nickname})", text(lease, "holder")),
            None => text(lease, "holder"),
        };
        let mut notes = Vec::new();
        if lease["pinned"] == true {
            notes.push("pinned");
        }
        if lease["holder_reachable"] == false {
            notes.push("holder unreachable");
        }
        let line = format!(
            "{:<24} {:<15} {:<17} {:<8} {:<8} {holder} {}",
            text(lease, "identity"),
            text(lease, "address"),
            text(lease, "mac"),
            text(lease, "kind"),
            text(lease, "state"),
            notes.join(", ")
        );
        out.line(line.trim_end())?;
    }
    Ok(())
}
