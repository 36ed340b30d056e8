//! Peers that users name, in the loop.

use std::time::Duration;

use proto::connector::Target;

use super::control::Control;
use super::errors::ConnectError;
use super::request::Reply;
use super::targets::Caller;

/// Between attempts at resolving a name.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Callers who wait for names to be resolved. Further ones are refused.
const CALLERS_MAX: usize = 64;

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
