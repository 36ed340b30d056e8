//! `weft expose` and `weft hide`.

use clap::{ArgAction, Args};
use ipnet::Ipv4Net;

use super::address::{self, Allocator, Wanted};
use super::attach::EXPOSE_OWNER;
use super::{CliError, Output, RouterArgs, dns, naming};

/// Gives this host addresses on the network, and lets containers reach other networks through it.
///
/// Without ADDR, the router chooses an address from the default subnet.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "EXAMPLES:
  weft expose                             let the host and its containers reach each other
  weft expose 10.7.255.254/16             with this address
  weft expose -h host1                    with the name host1.weave.local
  weft expose --without-masquerade        packets keep the containers' source addresses"
)]
pub(crate) struct ExposeArgs {
    /// Addresses, as for attach
    #[arg(value_name = "ADDR")]
    addresses: Vec<String>,
    /// Do not rewrite source addresses of packets that leave the subnet
    #[arg(long)]
    without_masquerade: bool,
    /// Name by which containers find this host; may be given several times
    #[arg(short = 'h', long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ExposeArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (mut wanted, rest) = address::split(&self.addresses)?;
        if let Some(word) = rest.first() {
            return Err(CliError::usage(format!(
                "{word:?} is no address like 10.7.0.5/16"
            )));
        }
        if wanted.is_empty() {
            wanted.push(Wanted::Default);
        }
        let router = self.router.router()?;
        naming::check(&router, &self.names).await?;
        let client = &router.client;
        let allocator = Allocator::new(&router, EXPOSE_OWNER, "");
        let got = allocator.get(&wanted).await?;
        for one in &got {
            let path = format!(
                "/expose/{}?skipNAT={}",
                one.address, self.without_masquerade
            );
            if let Err(error) = client.post(&path, "").await?.ok() {
                allocator.give_back(&got).await?;
                return Err(error.into());
            }
            if !self.names.is_empty() {
                let ip = one.address.addr();
                dns::register(&router, EXPOSE_OWNER, ip, &self.names).await?;
            }
        }
        let words: Vec<String> = got
            .iter()
            .map(|got| got.address.addr().to_string())
            .collect();
        out.line(&words.join(" "))
    }
}

/// Removes addresses from this host, and the packet filter rules that belong to them.
#[derive(Args, Debug)]
pub(crate) struct HideArgs {
    /// Addresses; without any, all of them
    #[arg(value_name = "ADDR")]
    addresses: Vec<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl HideArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (wanted, rest) = address::split(&self.addresses)?;
        if let Some(word) = rest.first() {
            return Err(CliError::usage(format!(
                "{word:?} is no address like 10.7.0.5/16"
            )));
        }
        let router = self.router.router()?;
        let client = &router.client;
        let allocator = Allocator::new(&router, EXPOSE_OWNER, "");
        let owned = allocator.owned().await?;
        let mut paths = Vec::new();
        for wanted in &wanted {
            match wanted {
                Wanted::Address(address) => paths.push(format!("/expose/{}", address.addr())),
                Wanted::Default => paths.extend(owned.iter().map(path_of)),
                Wanted::Subnet(net) => {
                    paths.extend(owned.iter().filter(|a| net.contains(*a)).map(path_of));
                }
            }
        }
        if wanted.is_empty() {
            paths.push("/expose".to_owned());
        }
        let mut hidden: Vec<Ipv4Net> = Vec::new();
        for path in paths {
            let text = client.delete(&path).await?.ok()?;
            hidden.extend(text.lines().filter_map(|line| line.parse::<Ipv4Net>().ok()));
        }
        allocator.release(hidden.iter().copied()).await?;
        for address in &hidden {
            dns::unregister(&router, EXPOSE_OWNER, Some(address.addr()), None).await?;
        }
        let words: Vec<String> = hidden
            .iter()
            .map(|address| address.addr().to_string())
            .collect();
        out.line(&words.join(" "))
    }
}

fn path_of(address: &Ipv4Net) -> String {
    format!("/expose/{}", address.addr())
}
