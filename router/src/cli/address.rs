//! Addresses as users write them, and getting them from the router.

use std::str::FromStr;

use ipnet::Ipv4Net;

use super::CliError;
use crate::http::client::{Client, ClientError, encode};

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
            cidr.parse::<Ipv4Net>().map_err(|_| {
                format!("{text:?} is no address like 10.7.0.5/16, net:10.7.5.0/24 or net:default")
            })
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
    client: &'c Client,
    owner: String,
    /// Appended to requests that allocate or claim.
    query: String,
}

/// An address that was got, and whether it was this call that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) address: Ipv4Net,
    pub(crate) new: bool,
}

impl<'c> Allocator<'c> {
    pub(crate) fn new(client: &'c Client, owner: &str, query: String) -> Allocator<'c> {
        Allocator {
            client,
            owner: owner.to_owned(),
            query,
        }
    }

    /// Gets every wanted address; gives back those it got if one fails.
    pub(crate) async fn get(&self, wanted: &[Wanted]) -> Result<Vec<Got>, CliError> {
        let before = self.owned().await?;
        let mut got: Vec<Got> = Vec::new();
        for wanted in wanted {
            match self.get_one(*wanted).await {
                Ok(address) => got.push(Got {
                    address,
                    new: !before.contains(&address),
                }),
                Err(error) => {
                    self.release(got.iter().filter(|got| got.new).map(|got| got.address))
                        .await?;
                    return Err(error);
                }
            }
        }
        Ok(got)
    }

    async fn get_one(&self, wanted: Wanted) -> Result<Ipv4Net, CliError> {
        let owner = encode(&self.owner);
        let query = &self.query;
        let answer = match wanted {
            Wanted::Default => self.client.post(&format!("/ip/{owner}{query}"), "").await?,
            Wanted::Subnet(net) => {
                self.client
                    .post(&format!("/ip/{owner}/{net}{query}"), "")
                    .await?
            }
            Wanted::Address(address) => {
                let answer = self
                    .client
                    .put(&format!("/ip/{owner}/{address}{query}"), "")
                    .await?;
                // Without allocator every address is the user's own affair.
                if answer.status.as_u16() != 404 {
                    answer.ok()?;
                }
                return Ok(address);
            }
        };
        if answer.status.as_u16() == 404 {
            return Err(CliError::failed(
                "the router does not allocate addresses (it runs with an empty --ipalloc-range); \
                 give an address like 10.7.0.5/16",
            ));
        }
        let text = answer.ok()?;
        text.trim().parse().map_err(|_| match text.trim() {
            "cancelled" => CliError::failed("the request was cancelled: the router is leaving"),
            other => CliError::failed(format!("the router answered {other:?}")),
        })
    }

    /// All addresses of the owner; none without allocator.
    pub(crate) async fn owned(&self) -> Result<Vec<Ipv4Net>, CliError> {
        let answer = self.client.get_json("/ip").await?;
        if answer.status.as_u16() == 404 {
            return Ok(Vec::new());
        }
        let value: serde_json::Value =
            serde_json::from_str(&answer.ok()?).map_err(CliError::failed)?;
        let entries = value["owned"].as_array().into_iter().flatten();
        let ours = entries.filter(|entry| entry["containerid"] == self.owner.as_str());
        let addresses = ours.flat_map(|entry| entry["addrs"].as_array().into_iter().flatten());
        Ok(addresses.filter_map(|a| a.as_str()?.parse().ok()).collect())
    }

    /// Gives addresses back; those that the allocator does not know are none of its business.
    pub(crate) async fn release(
        &self,
        addresses: impl IntoIterator<Item = Ipv4Net>,
    ) -> Result<(), CliError> {
        for address in addresses {
            let path = format!("/ip/{}/{}", encode(&self.owner), address.addr());
            match self.client.delete(&path).await?.ok() {
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
