//! Identities of containers, by which they have the same address on every host.
//!
//! In this order: what the user says by the label or option [`IDENTITY`]; the place in a compose
//! project or a swarm service; the name, if a user chose it.

use std::collections::BTreeMap;

use host::container_name::is_made_up;
use ipam::leases::{Identity, IdentityKind};

/// The label of a container, and the option of its endpoint, that says who it is.
pub(crate) const IDENTITY: &str = "weft.identity";

/// Returns an identity that the user gave.
pub(crate) fn explicit(name: &str) -> Result<Identity, String> {
    let identity = Identity::new(IdentityKind::Explicit, name);
    identity.map_err(|error| format!("{IDENTITY}={name}: {error}"))
}

/// Returns the identity that goes with a container's name, if a user chose it.
pub(crate) fn by_name(name: &str) -> Option<Identity> {
    // Kubernetes names containers by itself.
    if name.is_empty() || name.starts_with("k8s_") || is_made_up(name) {
        return None;
    }
    Identity::new(IdentityKind::Derived, name).ok()
}

/// Returns the identity of a container by its labels and name, if it has one.
pub(crate) fn of_container(
    labels: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<Identity>, String> {
    let label = |name: &str| {
        let value = labels.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    };
    if let Some(name) = label(IDENTITY) {
        return explicit(name).map(Some);
    }
    if let Some(service) = label("com.docker.compose.service") {
        let one_off = label("com.docker.compose.oneoff");
        let project = label("com.docker.compose.project").unwrap_or_default();
        let number = label("com.docker.compose.container-number");
        return Ok(match number {
            // What runs once has no place in the service.
            _ if one_off.is_some_and(|text| text.eq_ignore_ascii_case("true")) => None,
            Some(number) => derived(&format!("{project}-{service}-{number}")),
            None => by_name(name),
        });
    }
    if let Some(task) = label("com.docker.swarm.task.name") {
        // service.slot.id: the id is new with each task.
        return Ok(task.rsplit_once('.').and_then(|(slot, _)| derived(slot)));
    }
    Ok(by_name(name))
}

fn derived(name: &str) -> Option<Identity> {
    Identity::new(IdentityKind::Derived, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(labels: &[(&str, &str)], name: &str) -> Option<(IdentityKind, String)> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let identity = of_container(&labels, name).unwrap()?;
        Some((identity.kind, identity.name().to_owned()))
    }

    fn derived(name: &str) -> Option<(IdentityKind, String)> {
        Some((IdentityKind::Derived, name.to_owned()))
    }

    #[test]
    fn the_order_of_what_names_a_container() {
        let compose = [
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "web"),
            ("com.docker.compose.container-number", "2"),
        ];
        assert_eq!(named(&[], "web-1"), derived("web-1"));
        assert_eq!(named(&compose, "shop_web_2"), derived("shop-web-2"));
        let with_label = [&compose[..], &[(IDENTITY, "front")]].concat();
        let explicit = Some((IdentityKind::Explicit, "front".to_owned()));
        assert_eq!(named(&with_label, "shop_web_2"), explicit);
        let once = [&compose[..], &[("com.docker.compose.oneoff", "True")]].concat();
        assert_eq!(named(&once, "shop-web-run-1f2e"), None);
        let task = [("com.docker.swarm.task.name", "web.1.x7ab")];
        assert_eq!(named(&task, "web.1.x7ab"), derived("web.1"));
        assert_eq!(named(&[], "k8s_POD_x"), None);
        assert_eq!(named(&[], ""), None);
    }

    #[test]
    fn a_label_that_is_no_identity_is_an_error() {
        let long = "x".repeat(256);
        let labels = BTreeMap::from([(IDENTITY.to_owned(), long)]);
        assert!(of_container(&labels, "web").is_err());
    }
}
