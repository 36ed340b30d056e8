//! Addresses as users write them, and getting them from the router.

use std::str::FromStr;

use hyper::Method;
use ipam::range::{Cidr, ParseCidrError};
use ipnet::Ipv4Net;
use proto::types::Mac;
use serde_json::Value;

use super::{CliError, Router};
use web::client::{Answer, ClientError, encode};

/// `[ip:]A.B.C.D/N`, `net:A.B.C.0/N` or `net:default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This very address.
    Address(Ipv4Net),
    /// Any address of this subnet.
    Subnet(Ipv4Net),
    /// Any address of the default subnet.
    Default,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        let parse = |cidr: &str| {
            let net = cidr.parse::<Ipv4Net>().map_err(|_| {
                format!("{text:?} is no address like 10.7.0.5/16, net:10.7.5.0/24 or net:default")
            })?;
            match Cidr::parse_address(cidr) {
                Err(error @ ParseCidrError::NotForHosts(_)) => Err(error.to_string()),
                _ => Ok(net),
            }
        };
        match text.strip_prefix("net:") {
            Some("default") => Ok(Wanted::Default),
            Some(subnet) => {
                let subnet = parse(subnet)?;
                if subnet == subnet.trunc() {
                    Ok(Wanted::Subnet(subnet))
                } else {
                    Err(format!(
                        "{text:?} has bits set after its prefix: net:{} is meant?",
                        subnet.trunc()
                    ))
                }
            }
            None => parse(text.strip_prefix("ip:").unwrap_or(text)).map(Wanted::Address),
        }
    }
}

/// Refuses the first and the last address of a subnet, with which no host can be reached.
fn check_host(address: Ipv4Net) -> Result<(), CliError> {
    let host = address.addr();
    if address.prefix_len() > 30 || (host != address.network() && host != address.broadcast()) {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "{host} is the first or the last address of {}, not one of a host (net:{} chooses one)",
        address.trunc(),
        address.trunc()
    )))
}

/// Takes arguments apart: leading words that are addresses, and the rest.
pub(crate) fn split(words: &[String]) -> Result<(Vec<Wanted>, Vec<String>), CliError> {
    let (mut wanted, mut rest) = (Vec::new(), Vec::new());
    for word in words {
        let is_address = word.contains('/') && !word.starts_with('/') && !word.starts_with('.');
        if word.starts_with("net:") || word.starts_with("ip:") || is_address {
            wanted.push(word.parse().map_err(CliError::usage)?);
        } else {
            rest.push(word.clone());
        }
    }
    Ok((wanted, rest))
}

/// The addresses of one owner, as the router's allocator keeps them.
#[derive(Debug)]
pub(crate) struct Allocator<'c> {
    router: &'c Router,
    owner: String,
    query: String,
}

/// An address that was got, and whether it was this call that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) address: Ipv4Net,
    pub(crate) new: bool,
    /// The MAC address that goes with it, if it belongs to an identity.
    pub(crate) mac: Option<Mac>,
}

impl<'c> Allocator<'c> {
    /// `query` is appended to requests that allocate or claim, like `identity=web-1`.
    pub(crate) fn new(router: &'c Router, owner: &str, query: &str) -> Allocator<'c> {
        Allocator {
            router,
            owner: owner.to_owned(),
            query: query.to_owned(),
        }
    }

    /// Gets every wanted address; gives back those it got if one fails.
    pub(crate) async fn get(&self, wanted: &[Wanted]) -> Result<Vec<Got>, CliError> {
        let before = self.owned().await?;
        let mut got: Vec<Got> = Vec::new();
        for wanted in wanted {
            match self.get_one(*wanted).await {
                Ok((address, mac)) => {
                    got.push(Got {
                        address,
                        new: !before.contains(&address),
                        mac,
                    });
                }
                Err(error) => {
                    self.give_back(&got).await?;
                    return Err(error);
                }
            }
        }
        Ok(got)
    }

    async fn get_one(&self, wanted: Wanted) -> Result<(Ipv4Net, Option<Mac>), CliError> {
        let owner = encode(&self.owner);
        let answer = match wanted {
            Wanted::Default => self.ask(Method::POST, &format!("/ip/{owner}")).await?,
            Wanted::Subnet(net) => {
                self.ask(Method::POST, &format!("/ip/{owner}/{net}"))
                    .await?
            }
            Wanted::Address(address) => {
                check_host(address)?;
                let answer = self
                    .ask(Method::PUT, &format!("/ip/{owner}/{address}"))
                    .await?;
                // Without allocator every address is the user's own affair.
                if answer.status.as_u16() == 404 {
                    return Ok((address, None));
                }
                answer
            }
        };
        if answer.status.as_u16() == 404 {
            return Err(CliError::failed(
                "the router does not allocate addresses (it runs with an empty --ipalloc-range); \
                 give an address like 10.7.0.5/16",
            ));
        }
        let text = answer.ok()?;
        // A claim of an address that is outside of the range has no more to say.
        if let (Wanted::Address(address), "") = (wanted, text.as_str()) {
            return Ok((address, None));
        }
        let value: Value = serde_json::from_str(&text).map_err(|_| match text.trim() {
            "cancelled" => CliError::failed("the request was cancelled: the router is leaving"),
            other => CliError::failed(format!("the router answered {other:?}")),
        })?;
        let address = value["address"]
            .as_str()
            .and_then(|address| address.parse().ok());
        let mac = value["mac"].as_str().and_then(|mac| mac.parse().ok());
        let address = address.ok_or_else(|| CliError::failed("the router gave no address"))?;
        Ok((address, mac))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Answer, CliError> {
        let seconds = self.router.time_max.as_secs();
        let path = format!("{path}?timeout={seconds}s&{}", self.query);
        self.router.ask_waiting(method, &path, &self.owner).await
    }

    /// Returns all addresses of the owner; none without allocator.
    pub(crate) async fn owned(&self) -> Result<Vec<Ipv4Net>, CliError> {
        let answer = self.router.client.get_json("/ip").await?;
        if answer.status.as_u16() == 404 {
            return Ok(Vec::new());
        }
        let value: Value = serde_json::from_str(&answer.ok()?).map_err(CliError::failed)?;
        let entries = value["owned"].as_array().into_iter().flatten();
        let ours = entries.filter(|entry| entry["containerid"] == self.owner.as_str());
        let addresses = ours.flat_map(|entry| entry["addrs"].as_array().into_iter().flatten());
        Ok(addresses.filter_map(|a| a.as_str()?.parse().ok()).collect())
    }

    /// Gives back what is new.
    pub(crate) async fn give_back(&self, got: &[Got]) -> Result<(), CliError> {
        self.release(got.iter().filter(|got| got.new).map(|got| got.address))
            .await
    }

    /// Gives addresses back; those that the allocator does not know are none of its business.
    pub(crate) async fn release(
        &self,
        addresses: impl IntoIterator<Item = Ipv4Net>,
    ) -> Result<(), CliError> {
        for address in addresses {
            let path = format!("/ip/{}/{}", encode(&self.owner), address.addr());
            match self.router.client.delete(&path).await?.ok() {
                Ok(_)
                | Err(ClientError::Refused {
                    status: 400 | 404, ..
                }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_addresses() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        assert_eq!(
            "10.7.0.5/16".parse(),
            Ok(Wanted::Address(net("10.7.0.5/16")))
        );
        assert_eq!(
            "ip:10.7.0.5/16".parse(),
            Ok(Wanted::Address(net("10.7.0.5/16")))
        );
        assert_eq!(
            "net:10.7.5.0/24".parse(),
            Ok(Wanted::Subnet(net("10.7.5.0/24")))
        );
        assert_eq!("net:default".parse(), Ok(Wanted::Default));
        for bad in [
            "",
            "10.7.0.5",
            "net:10.7.5.1/24",
            "net:",
            "ip:default",
            "10.7.0.5/33",
        ] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_targets_are_told_apart() {
        let words = ["10.7.0.5/16", "net:default", "1234"].map(str::to_owned);
        let (wanted, rest) = split(&words).unwrap();
        assert_eq!((wanted.len(), rest), (2, vec!["1234".to_owned()]));
        let (wanted, rest) = split(&["/run/netns/a".to_owned()]).unwrap();
        assert_eq!((wanted.len(), rest.len()), (0, 1));
    }
}
