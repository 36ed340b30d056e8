//! Peers that users name, until their addresses are known.
//!
//! A peer that is named over HTTP is resolved once, and its caller told. One that is named at
//! launch is tried again until it can be resolved, since the resolver may come up later than the
//! router.

use std::collections::BTreeMap;

use proto::connector::Target;
use proto::types::Time;

use super::errors::ConnectError;
use super::request::Reply;

/// Peers whose addresses are not known yet.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// When each is tried next; `None` while it is being resolved.
    pub(super) unresolved: BTreeMap<String, Option<Time>>,
    pub(super) callers: Vec<Caller>,
}

/// A caller who waits until all peers of a request are resolved.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peers: Vec<(String, Option<Result<Target, String>>)>,
    pub(super) replace: bool,
    pub(super) reply: Reply<Result<(), ConnectError>>,
}

impl Caller {
    pub(super) fn is_ready(&self) -> bool {
        self.peers.iter().all(|(_, result)| result.is_some())
    }
}

impl Targets {
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.unresolved.values().copied().flatten().min()
    }

    /// Peers that are not resolved, which users see among the targets.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &str> {
        self.unresolved.keys().map(String::as_str)
    }

    /// The peers that are to be resolved now.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<String> {
        let unresolved = self.unresolved.iter_mut();
        let due = unresolved.filter(|(_, at)| at.is_some_and(|at| at <= now));
        due.map(|(peer, at)| {
            *at = None;
            peer.clone()
        })
        .collect()
    }

    /// Takes what became of a peer. Returns the callers who have waited for it alone.
    pub(super) fn take_ready(
        &mut self,
        peer: &str,
        result: &Result<Target, String>,
    ) -> Vec<Caller> {
        for caller in &mut self.callers {
            for (name, slot) in &mut caller.peers {
                if name == peer && slot.is_none() {
                    *slot = Some(result.clone());
                }
            }
        }
        let ready = self.callers.extract_if(.., |caller| caller.is_ready());
        ready.collect()
    }
}
