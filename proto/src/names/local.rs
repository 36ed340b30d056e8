//! What a user of this host says of names.

use std::net::Ipv4Addr;

use super::domain::Domain;
use super::entry::{BadEntry, Key};
use super::table::ENTRIES_PER_ORIGIN_MAX;
use crate::types::PeerName;

/// Configuration of [`Names`](super::Names).
#[derive(Clone, Debug)]
pub struct NamesConfig {
    /// Our own name.
    pub us: PeerName,
    /// The domain in which names may be registered.
    pub domain: Domain,
}

/// Why a name was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The name does not lie in our domain.
    #[error("name lies outside the domain")]
    OutsideDomain,
    /// The name or the container id cannot be sent.
    #[error(transparent)]
    Bad(#[from] BadEntry),
    /// We have as many entries as one peer may have.
    #[error("too many names: {ENTRIES_PER_ORIGIN_MAX} registered here")]
    Full,
}

/// Selects which of our entries to delete. A field that is `None` matches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The name, in any case; the trailing dot may be left out.
    pub hostname: Option<&'a str>,
    /// The container.
    pub container: Option<&'a str>,
    /// The address.
    pub addr: Option<Ipv4Addr>,
}

impl Filter<'_> {
    pub(super) fn matches(&self, key: &Key) -> bool {
        let dotless = |name: &'_ str| name.strip_suffix('.').unwrap_or(name).len();
        self.container
            .is_none_or(|wanted| wanted == &*key.container)
            && self.addr.is_none_or(|wanted| wanted == key.addr)
            && self.hostname.is_none_or(|wanted| {
                wanted.as_bytes()[..dotless(wanted)]
                    .eq_ignore_ascii_case(&key.hostname.as_bytes()[..dotless(&key.hostname)])
            })
    }
}
