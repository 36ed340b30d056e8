//! The network between the hosts, and the mesh that gossips over it.

use std::rc::Rc;

use ipam::allocator::{Channel, Delivery, Incoming, Peer};
use proto::types::PeerName;

use crate::host::Sending;
use crate::plan::Planted;
use crate::world::{Event, Kind, Machine, SECOND, World};

/// Up to so many routers are all connected with each other; of more, each is with so many on
/// each side.
const LINKED_MAX: usize = 100;
const LINKS_EACH_SIDE: usize = 8;

impl World {
    pub(crate) fn send(
        &mut self,
        from: usize,
        to: usize,
        kind: Kind,
        channel: Channel,
        payload: Rc<[u8]>,
    ) {
        if !self.connected(from, to) {
            return;
        }
        self.messages += 1;
        self.bytes += payload.len() as u64;
        let copies = 1 + usize::from(self.faults && self.rng.f64() < self.plan.duplication);
        for _ in 0..copies {
            if self.faults && self.rng.f64() < self.plan.loss {
                continue;
            }
            let slow = self.faults && self.rng.f64() < self.plan.slow;
            let delay = if slow {
                self.rng.u64(0..20 * SECOND)
            } else {
                self.rng.u64(200..20_000)
            };
            let payload = Rc::clone(&payload);
            self.after(
                delay,
                Event::Deliver {
                    to,
                    from,
                    kind,
                    channel,
                    payload,
                },
            );
        }
    }

    pub(crate) fn deliver(
        &mut self,
        to: usize,
        from: usize,
        kind: Kind,
        channel: Channel,
        payload: &[u8],
    ) {
        if self.nodes[to].dead || !self.nodes[to].up {
            return;
        }
        let name = self.nodes[from].name;
        match &mut self.nodes[to].machine {
            Machine::Weave(_) if channel == Channel::Leases => {}
            Machine::Weave(_) => self.weave(to, |weave| match kind {
                Kind::Unicast => weave.unicast(name, payload),
                Kind::Broadcast => weave.gossip(Some(name), payload),
                Kind::Gossip => weave.gossip(None, payload),
            }),
            Machine::Weft(_) => {
                let bumped = self.bumped(to, channel, kind, payload);
                let payload = bumped.as_deref().unwrap_or(payload);
                let kind = match kind {
                    Kind::Unicast => Delivery::Unicast(name),
                    Kind::Broadcast => Delivery::Broadcast(name),
                    Kind::Gossip => Delivery::Gossip,
                };
                let message = Incoming {
                    channel,
                    kind,
                    via: name,
                    payload,
                };
                self.weft(to, |allocator, clock| {
                    allocator.handle_message(clock, message);
                });
            }
        }
    }

    /// For a planted mistake: the message with versions that always win.
    pub(crate) fn bumped(
        &self,
        to: usize,
        channel: Channel,
        kind: Kind,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let planted = self.plan.planted == Planted::NoVersionCheck;
        if !planted || channel != Channel::Ring || kind == Kind::Unicast {
            return None;
        }
        let Machine::Weft(host) = &self.nodes[to].machine else {
            return None;
        };
        let mut state = ipam::messages::decode_state(payload, |_| false).ok()?.state;
        let mine = host.allocator.as_ref()?.ring();
        for entry in &mut state.ring.as_mut()?.1.entries {
            if let Some(mine) = mine.get(entry.token) {
                entry.version = entry.version.max(mine.version + 1);
            }
        }
        Some(state.encode())
    }

    pub(crate) fn gossip(&mut self, node: usize) {
        if self.nodes[node].dead {
            return;
        }
        self.after(30 * SECOND, Event::Gossip(node));
        let mut to = self.others(node);
        to.retain(|other| self.is_linked(node, *other));
        self.rng.shuffle(&mut to);
        to.truncate(4);
        if to.is_empty() {
            return;
        }
        match &self.nodes[node].machine {
            Machine::Weave(weave) => {
                let payload: Rc<[u8]> = weave.payload().into();
                for to in to {
                    self.send(node, to, Kind::Gossip, Channel::Ring, Rc::clone(&payload));
                }
            }
            Machine::Weft(_) => {
                for channel in [Channel::Ring, Channel::Leases] {
                    self.want_state(node, channel, Sending::Gossip(to.clone()), None, false);
                }
            }
        }
    }

    pub(crate) fn want_state(
        &mut self,
        node: usize,
        channel: Channel,
        sending: Sending,
        neighbour: Option<PeerName>,
        new_link: bool,
    ) {
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        host.next_token += 1;
        let token = host.next_token;
        host.sending
            .insert(token, (channel == Channel::Leases, sending));
        self.weft(node, |allocator, clock| {
            allocator.handle_state_wanted(clock, channel, token, neighbour, new_link);
        });
    }

    pub(crate) fn tell_peers(&mut self, node: usize) {
        if !self.nodes[node].up || self.nodes[node].dead {
            return;
        }
        let others = self.others(node);
        let names: Vec<PeerName> = others.iter().map(|other| self.nodes[*other].name).collect();
        if let Machine::Weave(weave) = &mut self.nodes[node].machine {
            return weave.set_peers(names);
        }
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if host.neighbours == others {
            return;
        }
        let before = std::mem::replace(&mut host.neighbours, others.clone());
        let peers: Vec<Peer> = names
            .iter()
            .map(|name| Peer {
                name: *name,
                nickname: format!("n{name}"),
                reachable: true,
            })
            .collect();
        self.weft(node, |allocator, clock| {
            allocator.handle_targets(clock, names.len());
            allocator.handle_peers(clock, peers);
        });
        for other in others {
            if before.contains(&other) || !self.is_linked(node, other) {
                continue;
            }
            let name = Some(self.nodes[other].name);
            for channel in [Channel::Ring, Channel::Leases] {
                self.want_state(node, channel, Sending::Gossip(vec![other]), name, true);
            }
        }
    }

    /// Returns true if two routers are connected directly. In a big mesh each has few connections.
    fn is_linked(&self, a: usize, b: usize) -> bool {
        let count = self.nodes.len();
        let distance = a.abs_diff(b);
        count <= LINKED_MAX || distance.min(count - distance) <= LINKS_EACH_SIDE
    }

    /// Everyone hears of a changed topology, soon but not at once.
    pub(crate) fn topology_changed(&mut self) {
        for node in 0..self.nodes.len() {
            let delay = self.rng.u64(50_000..1_500_000);
            self.after(delay, Event::Topology(node));
        }
    }
}
