//! Scheduling of views: they are made only on demand, only of what has changed, and for no more
//! than a tenth of the loop's time.

use std::sync::Arc;
use std::time::Duration;

use proto::types::Time;

use super::request::Reply;
use super::view::{AddressesView, MeshView, NamesView, View};

/// Longest time between two views while somebody waits. Making one may take a tenth of it.
const INTERVAL_MAX: Duration = Duration::from_millis(100);
/// For each unit of time that making a view took, the loop does other work for this many.
const REST: u32 = 9;

/// Makes views.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    last: Option<Arc<View>>,
    changed: Changed,
    waiting: Vec<Reply<Arc<View>>>,
    /// Before this time no view is made.
    next: Time,
}

/// Which parts have changed since the last view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) mesh: bool,
    pub(super) addresses: bool,
    pub(super) names: bool,
}

impl Publisher {
    /// Marks parts as changed.
    pub(super) fn changed(&mut self) -> &mut Changed {
        &mut self.changed
    }

    /// Somebody wants a view.
    pub(super) fn ask(&mut self, reply: Reply<Arc<View>>) {
        // Whoever has waited too long has taken an older one.
        self.waiting.retain(|reply| !reply.is_abandoned());
        self.waiting.push(reply);
    }

    /// Time by which a view is to be made, if somebody waits for one.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// Returns true if a view is to be made now.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Returns the mesh of the last view, unless it has changed.
    pub(super) fn mesh(&self) -> Option<Arc<MeshView>> {
        let last = self.last.as_ref().filter(|_| !self.changed.mesh)?;
        Some(Arc::clone(&last.mesh))
    }

    /// Returns the allocator of the last view, unless it has changed.
    pub(super) fn addresses(&self) -> Option<Arc<AddressesView>> {
        let last = self.last.as_ref().filter(|_| !self.changed.addresses)?;
        last.addresses.clone()
    }

    /// Returns the names of the last view, unless they have changed.
    pub(super) fn names(&self) -> Option<Arc<NamesView>> {
        let last = self.last.as_ref().filter(|_| !self.changed.names)?;
        last.names.clone()
    }

    /// Answers everybody who waits with a view that was made from `view.at` to `now`.
    pub(super) fn publish(&mut self, view: View, now: Time) {
        self.next = now + (now.since(view.at) * REST).min(INTERVAL_MAX);
        let view = Arc::new(view);
        self.last = Some(Arc::clone(&view));
        self.changed = Changed::default();
        for reply in self.waiting.drain(..) {
            reply.send(Arc::clone(&view));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use proto::node::{Node, NodeConfig};
    use proto::types::{PeerName, PeerUid};

    use super::*;
    use crate::consumers::LeftOver;
    use crate::loop_time::LoopTime;

    fn mesh() -> MeshView {
        let us = PeerName::UNKNOWN;
        let node = Node::new(NodeConfig::new(us, "", PeerUid(1), 1), Time::ZERO);
        MeshView {
            us,
            peers: BTreeMap::new(),
            routes: Arc::clone(node.routes()),
            connections: Vec::new(),
            introductions: 0,
            targets: Vec::new(),
            named_targets: Vec::new(),
            counters: node.counters(),
            left_over: LeftOver::default(),
            slots: BTreeMap::new(),
        }
    }

    fn view(at: Time) -> View {
        View {
            at,
            wall: UNIX_EPOCH,
            loop_time: LoopTime::default(),
            mesh: Arc::new(mesh()),
            addresses: None,
            names: None,
        }
    }

    #[test]
    fn views_take_a_tenth_of_the_time_at_most() {
        let mut publisher = Publisher::default();
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        assert_eq!(publisher.poll_timeout(), None, "nobody asks");
        let (reply, _answer) = Reply::new();
        publisher.ask(reply);
        assert!(publisher.is_due(at(0)));
        publisher.publish(view(at(0)), at(2));
        let (reply, _answer) = Reply::new();
        publisher.ask(reply);
        assert_eq!(publisher.poll_timeout(), Some(at(20)));
        assert!(!publisher.is_due(at(19)));
        publisher.publish(view(at(20)), at(520));
        let (reply, _answer) = Reply::new();
        publisher.ask(reply);
        assert_eq!(
            publisher.poll_timeout(),
            Some(at(620)),
            "and never wait for long"
        );
    }
}
