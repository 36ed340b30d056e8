//! Peers that users name, until their addresses are known.
//!
//! A peer that is named over HTTP is resolved once, and its caller told. One that is named at
//! launch is tried again until it can be resolved, since the resolver may come up later than the
//! router.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::connector::Target;
use proto::types::Time;

use super::control::Control;
use super::request::{ConnectError, Reply};

/// Interval between attempts at resolving a name.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Callers who wait for names to be resolved. Further ones are refused.
const CALLERS_MAX: usize = 64;

/// Peers whose addresses are not known yet.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// Time of the next attempt for each; `None` while it is being resolved.
    unresolved: BTreeMap<String, Option<Time>>,
    callers: Vec<Caller>,
}

/// A caller who waits until all peers of a request are resolved.
#[derive(Debug)]
struct Caller {
    peers: Vec<(String, Option<Result<Target, String>>)>,
    replace: bool,
    reply: Reply<Result<(), ConnectError>>,
}

impl Caller {
    fn is_ready(&self) -> bool {
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

    /// Returns the peers that are to be resolved now.
    fn take_due(&mut self, now: Time) -> Vec<String> {
        let unresolved = self.unresolved.iter_mut();
        let due = unresolved.filter(|(_, at)| at.is_some_and(|at| at <= now));
        due.map(|(peer, at)| {
            *at = None;
            peer.clone()
        })
        .collect()
    }

    /// Takes what became of a peer. Returns the callers who have waited for it alone.
    fn take_ready(&mut self, peer: &str, result: &Result<Target, String>) -> Vec<Caller> {
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

impl Control {
    /// Names peers to be connected to, to be resolved in the background for as long as it takes.
    pub(super) fn connect_in_background(&mut self, peers: Vec<String>) {
        let now = self.now();
        self.publisher.changed().mesh = true;
        let due = peers.into_iter().map(|peer| (peer, Some(now)));
        self.targets.unresolved.extend(due);
        self.tell_allocator_of_targets();
    }

    /// Starts resolving what is due.
    pub(super) fn resolve_due(&mut self) {
        for peer in self.targets.take_due(self.now()) {
            self.surroundings.connections.resolve(peer);
        }
    }

    /// Names peers to be connected to. The caller is answered once all are resolved.
    pub(super) fn connect(
        &mut self,
        peers: Vec<String>,
        replace: bool,
        reply: Reply<Result<(), ConnectError>>,
    ) {
        if self.targets.callers.len() >= CALLERS_MAX {
            let error = "too many others wait for names to be resolved".to_owned();
            return reply.send(Err(ConnectError::Failed(vec![error])));
        }
        let caller = Caller {
            peers: peers.iter().map(|peer| (peer.clone(), None)).collect(),
            replace,
            reply,
        };
        if caller.is_ready() {
            return self.connect_for(caller);
        }
        self.targets.callers.push(caller);
        for peer in peers {
            self.surroundings.connections.resolve(peer);
        }
    }

    /// Connects to what could be resolved for a caller, and answers.
    fn connect_for(&mut self, caller: Caller) {
        if caller.reply.is_abandoned() {
            return;
        }
        let (mut targets, mut errors) = (Vec::new(), Vec::new());
        for result in caller.peers.into_iter().filter_map(|(_, result)| result) {
            match result {
                Ok(target) => targets.push(target),
                Err(error) => errors.push(error),
            }
        }
        if caller.replace {
            self.targets.unresolved.clear();
        }
        let now = self.now();
        self.publisher.changed().mesh = true;
        let connected = self.node.connect(now, targets, caller.replace);
        errors.extend(connected.err().map(|error| error.to_string()));
        caller.reply.send(match errors.is_empty() {
            true => Ok(()),
            false => Err(ConnectError::Failed(errors)),
        });
    }

    /// Forgets peers by the texts they were named by.
    pub(super) fn forget(&mut self, peers: &[String]) {
        for peer in peers {
            self.targets.unresolved.remove(peer);
        }
        let now = self.now();
        self.publisher.changed().mesh = true;
        self.node.forget(now, peers.iter().map(String::as_str));
    }

    /// A peer was resolved, or could not be.
    pub(super) fn resolved(&mut self, peer: String, result: Result<Target, String>) {
        for caller in self.targets.take_ready(&peer, &result) {
            self.connect_for(caller);
        }
        let now = self.now();
        let Some(at) = self.targets.unresolved.get_mut(&peer) else {
            return;
        };
        match result {
            Ok(target) => {
                self.targets.unresolved.remove(&peer);
                if let Err(error) = self.node.connect(now, [target], false) {
                    tracing::warn!(peer, %error, "a peer is not connected to");
                }
            }
            Err(error) => {
                *at = Some(now + RETRY_INTERVAL);
                tracing::warn!("{error}; trying again in {} s", RETRY_INTERVAL.as_secs());
            }
        }
    }
}
