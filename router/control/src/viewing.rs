//! Views of the loop: copies of what has changed.

use std::sync::Arc;

use ipam::range::Range;

use super::control::Control;
use super::view::{AddressesView, MeshView, NamesView, Ranges, TargetFacts, View};

impl Control {
    /// Makes a view if somebody waits for one. Of what has not changed, the copy in the last view
    /// is taken again.
    pub(super) fn publish_view(&mut self) {
        let at = self.now();
        if !self.publisher.is_due(at) {
            return;
        }
        let addresses = || {
            let status = self.addresses.as_ref()?.allocator.status();
            Some(Arc::new(AddressesView { status }))
        };
        let names = || Some(Arc::new(self.names_view()?));
        let mesh = self.publisher.mesh();
        let view = View {
            at,
            wall: self.surroundings.clock.wall(),
            loop_time: self.loop_time,
            mesh: mesh.unwrap_or_else(|| Arc::new(self.mesh_view())),
            addresses: self.publisher.addresses().or_else(addresses),
            names: self.publisher.names().or_else(names),
        };
        let made = self.now();
        self.publisher.publish(view, made);
    }

    fn mesh_view(&self) -> MeshView {
        let peers = self.node.topology().peers();
        let targets = self.node.targets().map(|target| TargetFacts {
            address: target.address,
            direct: target.direct,
            state: target.state,
            error: target.error.map(str::to_owned),
            next_try: target.next_try,
        });
        let named = self.node.direct_targets().map(|target| target.text.clone());
        let unresolved = self.targets.unresolved().map(str::to_owned);
        MeshView {
            us: self.node.us(),
            peers: peers.map(|peer| (peer.name, peer.clone())).collect(),
            routes: Arc::clone(self.node.routes()),
            connections: self.node.connections().collect(),
            introductions: self.node.introductions(),
            targets: targets.collect(),
            named_targets: named.chain(unresolved).collect(),
            counters: self.node.counters(),
            left_over: self.consumers.left_over(),
            slots: self.links.names(),
        }
    }

    fn names_view(&self) -> Option<NamesView> {
        let names = &self.naming.as_ref()?.names;
        let entries = names.table().iter();
        Some(NamesView {
            entries: entries
                .map(|(key, state)| (Arc::clone(key), state))
                .collect(),
            alive: names.table().alive(),
            waiting: names.held(),
            counters: names.counters(),
            clocks_off: names.clocks_off().collect(),
        })
    }

    /// The ranges that addresses come from; `None` if they are not allocated.
    pub(super) fn ranges(&self) -> Option<Ranges> {
        let allocator = &self.addresses.as_ref()?.allocator;
        let owned = allocator.ring().owned_ranges(self.node.us());
        Some(Ranges {
            universe: allocator.universe(),
            default_subnet: allocator.default_subnet(),
            settled: !allocator.ring().is_empty(),
            owned: owned.iter().flat_map(Range::cidrs).collect(),
        })
    }
}
