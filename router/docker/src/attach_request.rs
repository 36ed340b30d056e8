//! Which containers are to be attached without Docker's networks, and to what.

use ipam::leases::{Identity, IdentityKind};
use ipam::range::Cidr;

use crate::config::AttachWhich;
use crate::engine::Inspected;
use crate::identity;
use crate::validate::check_host;

/// Label: `true` attaches a container, `false` keeps it off.
const ATTACH: &str = "weft.attach";
/// Label: addresses, separated by blanks, as `weft attach` takes them.
const ADDRESS: &str = "weft.ip";
/// Label: a subnet to choose an address from.
const SUBNET: &str = "weft.subnet";
/// Variable of a container with addresses, or `none`, as Weave Net's proxy read it.
const VARIABLE: &str = "WEAVE_CIDR=";

/// An address that a container shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any of the default subnet.
    Default,
    /// Any of this subnet.
    Subnet(Cidr),
    /// This one.
    Address(Cidr),
}

/// The way in which a container is to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) addresses: Vec<Wanted>,
    pub(crate) identity: Option<Identity>,
}

impl Wish {
    /// Returns what a container says, and what is done with those that say nothing. `None` leaves
    /// it alone.
    pub(crate) fn of(container: &Inspected, which: AttachWhich) -> Result<Option<Wish>, String> {
        let mode = container.host_config.network_mode.as_str();
        if which == AttachWhich::None || mode == "host" || mode.starts_with("container:") {
            return Ok(None);
        }
        let labels = &container.config.labels;
        let variable = container.config.env.iter();
        let variable = variable.rev().find_map(|text| text.strip_prefix(VARIABLE));
        let attach = labels.get(ATTACH).map(|text| text.trim());
        let refused = |text: &str| ["false", "no", "0", "none"].contains(&text);
        if attach.is_some_and(refused) || variable.is_some_and(|text| text.trim() == "none") {
            return Ok(None);
        }
        let label = |name: &str| labels.get(name).filter(|text| !text.trim().is_empty());
        let says = attach.is_some()
            || variable.is_some()
            || [ADDRESS, SUBNET, identity::IDENTITY]
                .iter()
                .any(|name| label(name).is_some());
        // As Weave Net: who has chosen a network has chosen against ours.
        let plain = ["", "none", "default", "bridge"].contains(&mode);
        if !says && (which != AttachWhich::All || !plain) {
            return Ok(None);
        }
        let mut addresses = Vec::new();
        let words = variable.unwrap_or_default().split([' ', ',', '\t']);
        let given = label(ADDRESS).map_or("", String::as_str);
        let words = words.chain(given.split([' ', ',']));
        for word in words.filter(|word| !word.is_empty()) {
            addresses.push(wanted(word)?);
        }
        if let Some(subnet) = label(SUBNET) {
            let subnet = Cidr::parse_subnet(subnet.trim());
            addresses.push(Wanted::Subnet(
                subnet.map_err(|e| format!("{SUBNET}: {e}"))?,
            ));
        }
        if addresses.is_empty() {
            addresses.push(Wanted::Default);
        }
        let identity = identity::of_container(labels, container.name())?;
        Ok(Some(Wish {
            // An address that was given is nobody's by its name alone.
            identity: identity.filter(|identity| {
                let chosen = |wanted: &Wanted| matches!(wanted, Wanted::Address(_));
                identity.kind == IdentityKind::Explicit || !addresses.iter().any(chosen)
            }),
            addresses,
        }))
    }
}

/// Reads `net:default`, `net:CIDR`, `ip:CIDR` or `CIDR`.
fn wanted(word: &str) -> Result<Wanted, String> {
    let wrong =
        || format!("{word:?} is no address like 10.7.0.5/16, net:10.7.5.0/24 or net:default");
    match word.strip_prefix("net:") {
        Some("default") => Ok(Wanted::Default),
        Some(subnet) => Cidr::parse_subnet(subnet)
            .map(Wanted::Subnet)
            .map_err(|_| wrong()),
        None => {
            let address = word.strip_prefix("ip:").unwrap_or(word);
            let cidr = address.parse().map_err(|_| wrong())?;
            check_host(cidr)?;
            Ok(Wanted::Address(cidr))
        }
    }
}

/// Returns the names under which a container can be asked for: its own, those that its network
/// knows it by, and its host name if that is in our domain.
pub(crate) fn names(container: &Inspected, aliases: &[String], domain: &str) -> Vec<String> {
    let mut names = vec![container.name().to_owned()];
    names.extend(aliases.iter().cloned());
    let config = &container.config;
    let own = config.domainname.trim_end_matches('.');
    let domain = domain.trim_end_matches('.');
    // Without a domain the host name is mostly the container's id.
    if !own.is_empty() && (own == domain || own.ends_with(&format!(".{domain}"))) {
        names.push(format!("{}.{own}.", config.hostname));
    }
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serde_json::json;

    fn container(mode: &str, labels: &[(&str, &str)], env: &[&str]) -> Inspected {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        let page = json!({
            "Id": "c1", "Name": "/web-1", "HostConfig": { "NetworkMode": mode },
            "Config": { "Labels": labels, "Env": env },
        });
        serde_json::from_value(page).unwrap()
    }

    fn addresses(container: &Inspected, which: AttachWhich) -> Option<Vec<Wanted>> {
        Wish::of(container, which)
            .unwrap()
            .map(|wish| wish.addresses)
    }

    #[test]
    fn who_is_attached() {
        use AttachWhich::{All, Labels, None as Nobody};
        let default = Some(vec![Wanted::Default]);
        for (mode, labels, env, by_labels, by_all) in [
            ("bridge", &[][..], &[][..], false, true),
            ("none", &[], &["A=b"], false, true),
            ("shop_default", &[], &[], false, false),
            ("shop_default", &[("weft.attach", "true")], &[], true, true),
            (
                "bridge",
                &[("weft.attach", "false")],
                &["WEAVE_CIDR=net:default"],
                false,
                false,
            ),
            ("bridge", &[("weft.identity", "db")], &[], true, true),
            ("bridge", &[], &["WEAVE_CIDR="], true, true),
            ("bridge", &[], &["WEAVE_CIDR=none"], false, false),
            ("host", &[("weft.attach", "true")], &[], false, false),
            (
                "container:abc",
                &[("weft.attach", "true")],
                &[],
                false,
                false,
            ),
        ] {
            let container = container(mode, labels, env);
            let expected = |yes: bool| if yes { default.clone() } else { None };
            assert_eq!(addresses(&container, Nobody), None);
            assert_eq!(
                addresses(&container, Labels),
                expected(by_labels),
                "{container:?}"
            );
            assert_eq!(
                addresses(&container, All),
                expected(by_all),
                "{container:?}"
            );
        }
    }

    #[test]
    fn what_they_get() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let env = ["WEAVE_CIDR=net:10.7.5.0/24 ip:10.7.9.9/16 10.7.9.10/16"];
        let labels = [("weft.subnet", "10.7.6.0/24")];
        let expected = vec![
            Wanted::Subnet(cidr("10.7.5.0/24")),
            Wanted::Address(cidr("10.7.9.9/16")),
            Wanted::Address(cidr("10.7.9.10/16")),
            Wanted::Subnet(cidr("10.7.6.0/24")),
        ];
        let container_ = container("bridge", &labels, &env);
        assert_eq!(addresses(&container_, AttachWhich::Labels), Some(expected));
        for bad in [
            "WEAVE_CIDR=10.7.0.1",
            "WEAVE_CIDR=10.7.0.0/16",
            "WEAVE_CIDR=net:default ip:10.7.5.255/24",
            "WEAVE_CIDR=net:10.7.5.1/24",
            "WEAVE_CIDR=x",
        ] {
            let container = container("bridge", &[], &[bad]);
            assert!(Wish::of(&container, AttachWhich::Labels).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_those_that_can_be_asked_for() {
        let mut container = container("bridge", &[], &[]);
        container.config.hostname = "front".to_owned();
        let aliases = ["web".to_owned(), "web-1".to_owned()];
        assert_eq!(
            names(&container, &aliases, "weave.local."),
            ["web", "web-1"]
        );
        container.config.domainname = "weave.local".to_owned();
        let all = ["front.weave.local.", "web-1"];
        assert_eq!(names(&container, &[], "weave.local."), all);
        container.config.domainname = "example.com".to_owned();
        assert_eq!(names(&container, &[], "weave.local."), ["web-1"]);
    }
}
