//! Checks of what users ask for: addresses, subnets and options. What cannot work, or would not be
//! safe, is refused at once, not when the first container needs it.

use ipam::range::Cidr;

use crate::messages::{Options, option};
use crate::plugin::Plugin;
use crate::plugin_server::Socket;

/// Prefix of the names of weft's own options.
const PREFIX: &str = "weft.";
/// The longest prefix of a subnet whose first and last address are none of a host.
const PREFIX_LEN_MAX: u8 = 30;

impl Plugin {
    /// Refuses an address that cannot be a container's, or that other hosts would use as well.
    pub(crate) async fn check_address(&self, socket: &Socket, wanted: Cidr) -> Result<(), String> {
        check_host(wanted)?;
        // Weave Net leaves it to its user.
        if socket.foreign_pools {
            return Ok(());
        }
        match self.range().await? {
            Some(range) if !range.range().contains(wanted.address) => Err(format!(
                "address {} is outside of this router's range ({range}), so that nobody could tell \
                 whether another host uses it",
                wanted.address
            )),
            // Without a range the claim is refused, with the reason.
            _ => Ok(()),
        }
    }

    /// Refuses a subnet that nothing can be allocated from.
    pub(crate) async fn check_subnet(&self, socket: &Socket, subnet: Cidr) -> Result<(), String> {
        Cidr::parse_subnet(&subnet.to_string()).map_err(|e| e.to_string())?;
        match self.range().await? {
            Some(range) if !socket.foreign_pools && !range.range().overlaps(&subnet.range()) => {
                Err(format!(
                    "the subnet {subnet} is outside of this router's range ({range}): there are no \
                     addresses to give out"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Addresses of another allocator are safe only where ours watches over them.
    pub(crate) async fn check_foreign_pool(
        &self,
        socket: &Socket,
        pool: &str,
    ) -> Result<(), String> {
        let Ok(subnet) = pool.parse::<Cidr>() else {
            return Ok(());
        };
        let range = self.range().await?;
        let (whole, wanted) = (range.map(|range| range.range()), subnet.range());
        if whole.is_some_and(|whole| whole.start <= wanted.start && wanted.end <= whole.end) {
            return Ok(());
        }
        let range = range.map_or_else(|| "none".to_owned(), |range| range.to_string());
        if socket.foreign_pools {
            tracing::warn!(
                pool,
                "a network's addresses are outside of the range {range}: other hosts will not \
                 know when they are in use"
            );
            return Ok(());
        }
        Err(format!(
            "the addresses {pool} of Docker's own allocator are outside of this router's range \
             ({range}), so that other hosts would use them as well. Add --ipam-driver=null for \
             addresses that containers keep, or --ipam-driver={} with --subnet for --ip",
            socket.name
        ))
    }

    /// Returns all addresses of the mesh, as it is now: a range that was only defaulted yields.
    pub(crate) async fn range(&self) -> Result<Option<Cidr>, String> {
        let ranges = self.client.ranges().await;
        let ranges = ranges.map_err(|stopped| stopped.to_string())?;
        Ok(ranges.map(|ranges| ranges.universe))
    }
}

/// Refuses what cannot be the address of a host.
pub(crate) fn check_host(wanted: Cidr) -> Result<(), String> {
    let host_range = wanted.host_range();
    if wanted.len > PREFIX_LEN_MAX || host_range.contains(wanted.address) {
        return Ok(());
    }
    let (address, network) = (wanted.address, wanted.network());
    let what = if address == network.address {
        "network's own"
    } else {
        "broadcast"
    };
    Err(format!(
        "{address} is the {what} address of {network}, not one of a host"
    ))
}

/// Refuses options that look like ours and are not, as mistyped ones do.
pub(crate) fn check_options(options: &Options, known: &[&str]) -> Result<(), String> {
    for name in options.keys().filter(|name| name.starts_with(PREFIX)) {
        if !known.contains(&name.as_str()) {
            let known = known.join(", ");
            return Err(format!("there is no option {name:?} here, only {known}"));
        }
        if option(options, name).is_none() {
            return Err(format!("option {name}: a text is expected"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_neither_first_nor_last_address() {
        let check = |text: &str| check_host(text.parse().unwrap());
        for host in [
            "10.7.0.1/16",
            "10.7.255.254/16",
            "10.7.1.0/16",
            "10.7.0.0/31",
            "10.7.0.9/32",
        ] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        let network = check("10.7.0.0/16").unwrap_err();
        assert!(network.contains("network's own address of 10.7.0.0/16"));
        let last = check("10.7.5.255/24").unwrap_err();
        assert!(last.contains("broadcast address of 10.7.5.0/24"));
    }

    #[test]
    fn mistyped_options_are_refused() {
        let check = |text: &str| check_options(&serde_json::from_str(text).unwrap(), &["weft.ip"]);
        for good in [
            "{}",
            r#"{"weft.ip": "10.7.0.1"}"#,
            r#"{"com.example": [1]}"#,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(
            check(r#"{"weft.idenity": "web"}"#).unwrap_err(),
            r#"there is no option "weft.idenity" here, only weft.ip"#
        );
        assert!(check(r#"{"weft.ip": ["10.7.0.1"]}"#).is_err());
    }
}
