//! Why requests were not met.

use ipam::allocator;
use proto::names::AddError;

/// The loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router is stopping")]
pub struct Stopped;

/// Why a request for an address was not met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The router runs without an allocator.
    #[error("this router gives out no addresses (--ipalloc-range is empty)")]
    Off,
    /// The loop has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The allocator refused it.
    #[error(transparent)]
    Refused(#[from] allocator::RequestError),
}

/// Why peers were not added to those that are connected to, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The loop has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Some were not added, for these reasons.
    #[error("{}", .0.join("\n"))]
    Failed(Vec<String>),
}

/// Why names were not registered, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// The router runs without names.
    #[error("names are off: the router runs with --no-dns")]
    Off,
    /// The loop has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// These names were left out; others were registered.
    #[error("{}", list(.0))]
    Refused(Vec<(String, AddError)>),
}

fn list(refused: &[(String, AddError)]) -> String {
    let texts = refused.iter().map(|(name, why)| format!("{name}: {why}"));
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use proto::names::BadEntry;

    use super::*;

    #[test]
    fn every_refused_name_is_told() {
        let refused = [
            ("x.example.com.".to_owned(), AddError::OutsideDomain),
            ("a b".to_owned(), AddError::Bad(BadEntry::Hostname)),
        ];
        assert_eq!(
            NamesError::Refused(refused.into()).to_string(),
            "x.example.com.: name lies outside the domain; a b: invalid hostname"
        );
    }
}
