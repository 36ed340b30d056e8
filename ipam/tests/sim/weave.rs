//! A model of Weave Net: the ring without leases, saved at once, with its ways to die.

use std::collections::BTreeMap;

use ipam::consensus::{Elector, NodeId};
use ipam::messages::{GossipState, Unicast, decode_state};
use ipam::range::{Address, Cidr, Range};
use ipam::ring::{Ring, WeaveRules};
use ipam::space::Space;
use proto::types::PeerName;

const ASKS_PER_TICK: u32 = 3;

/// A mistake that a model can be told to make, to see that the checks find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bug {
    #[default]
    None,
    /// Entries of received rings are taken whatever their version.
    NoVersionCheck,
    /// Whoever asks is given an address that is in use.
    GrantsUsed,
}

pub(crate) enum Out {
    Unicast(PeerName, Vec<u8>),
    Broadcast,
    /// A container got its address, or will get none.
    Started(String, Option<Address>),
    /// A message after which Weave Net closes the connection.
    Refused(String),
    /// Weave Net would be dead.
    Dies(String),
}

pub(crate) struct Weave {
    pub(crate) name: PeerName,
    universe: Cidr,
    quorum: usize,
    pub(crate) ring: Ring,
    pub(crate) space: Space,
    pub(crate) owned: BTreeMap<String, Address>,
    waiting: Vec<(String, Option<Address>)>,
    elector: Elector,
    awaiting: bool,
    peers: Vec<PeerName>,
    /// Weave Net routers that lack space hand the network's address to and fro as fast as they can.
    /// That would be most of a run, so they may ask this many more times before the next tick.
    asks_left: u32,
    rng: fastrand::Rng,
    pub(crate) out: Vec<Out>,
    pub(crate) bug: Bug,
}

impl Weave {
    pub(crate) fn new(name: PeerName, universe: Cidr, quorum: usize, seed: u64) -> Weave {
        let uid = seed | 1;
        Weave {
            name,
            universe,
            quorum,
            ring: Ring::new(universe.range()),
            space: Space::new(),
            owned: BTreeMap::new(),
            waiting: Vec::new(),
            elector: Elector::new(NodeId { name, uid }),
            awaiting: false,
            peers: Vec::new(),
            asks_left: ASKS_PER_TICK,
            rng: fastrand::Rng::with_seed(seed),
            out: Vec::new(),
            bug: Bug::None,
        }
    }

    pub(crate) fn seed(&mut self, names: &[PeerName]) {
        self.ring = Ring::seeded(self.universe.range(), names);
        self.ring_updated();
    }

    pub(crate) fn set_peers(&mut self, peers: Vec<PeerName>) {
        self.peers = peers;
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        let has_ring = !self.ring.is_empty();
        GossipState {
            now: 0,
            nicknames: vec![(self.name, String::new())],
            election: (!has_ring).then(|| self.elector.nodes().clone()),
            ring: has_ring.then(|| (self.name, self.ring.clone())),
        }
        .encode()
    }

    fn finish(&mut self) {
        let owned = self.ring.owned_ranges(self.name);
        if let Err(error) = self.space.check(&owned) {
            self.out.push(Out::Dies(error));
        }
        let space = &self.space;
        self.ring
            .report_free(self.name, |range| Some(space.free_in(range)));
    }

    pub(crate) fn unicast(&mut self, from: PeerName, payload: &[u8]) {
        match Unicast::decode(payload) {
            Ok(Unicast::SpaceRequest(range)) if !self.ring.is_empty() => {
                self.donate(from, range);
            }
            Ok(Unicast::SpaceRequest(_)) => {}
            Ok(Unicast::SpaceDenied(range)) => {
                let (denied, rest) = std::mem::take(&mut self.waiting)
                    .into_iter()
                    .partition(|(_, claim)| claim.is_some_and(|address| range.contains(address)));
                self.waiting = rest;
                let denied: Vec<(String, Option<Address>)> = denied;
                let over = denied.into_iter().map(|(id, _)| Out::Started(id, None));
                self.out.extend(over);
            }
            Ok(Unicast::RingUpdate(state)) => self.state(Some(from), state),
            Ok(Unicast::Unknown(kind)) => self.out.push(Out::Dies(format!("kind {kind}"))),
            Err(error) => self.out.push(Out::Dies(error.to_string())),
        }
        self.finish();
    }

    pub(crate) fn gossip(&mut self, sender: Option<PeerName>, payload: &[u8]) {
        self.state(sender, payload);
        self.finish();
    }

    fn donate(&mut self, to: PeerName, wanted: Range) {
        if wanted.is_empty() {
            self.out.push(Out::Dies(format!("asked for {wanted}")));
            return;
        }
        let mut gift = self.space.donate(wanted);
        if self.bug == Bug::GrantsUsed
            && let Some(used) = self.owned.values().find(|a| wanted.contains(**a))
        {
            gift = Some(Range::single(*used));
            self.space.lose(Range::single(*used));
        }
        match gift {
            Some(gift) => {
                self.ring.grant(self.name, gift, to);
                let space = &self.space;
                self.ring
                    .report_free(self.name, |range| Some(space.free_in(range)));
                self.out.push(Out::Broadcast);
            }
            None => {
                let payload = Unicast::SpaceDenied(wanted).encode();
                self.out.push(Out::Unicast(to, payload));
            }
        }
        self.send_ring(to);
    }

    fn send_ring(&mut self, to: PeerName) {
        let payload = Unicast::RingUpdate(&self.payload()).encode();
        self.out.push(Out::Unicast(to, payload));
    }

    fn state(&mut self, sender: Option<PeerName>, payload: &[u8]) {
        let state = match decode_state(payload, |_| false) {
            Ok(received) => received.state,
            Err(error) => return self.out.push(Out::Refused(error.to_string())),
        };
        if let Some((_, mut theirs)) = state.ring {
            if self.bug == Bug::NoVersionCheck {
                for entry in &mut theirs.entries {
                    let mine = self.ring.get(entry.token);
                    let version = mine.map_or(entry.version, |mine| mine.version + 1);
                    entry.version = entry.version.max(version);
                }
            }
            self.merge(&theirs);
        } else if !self.ring.is_empty() {
            if let Some(sender) = sender {
                self.send_ring(sender);
            }
        } else if let Some(nodes) = state.election {
            if self.elector.update(&nodes) {
                if self.elector.think() {
                    self.out.push(Out::Broadcast);
                }
                self.conclude();
            }
        } else if sender.is_some() {
            self.establish();
        }
    }

    fn merge(&mut self, theirs: &Ring) {
        let space = &self.space;
        let idle = |range| space.is_idle(range);
        match self.ring.merge(self.name, theirs, &mut WeaveRules(idle)) {
            Ok(merged) => {
                let updated = merged.updated;
                self.ring.apply(merged);
                if updated {
                    self.ring_updated();
                }
            }
            Err(failed) => self.out.push(Out::Refused(failed.error.to_string())),
        }
    }

    fn ring_updated(&mut self) {
        self.awaiting = false;
        let everything = self.space.everything();
        let gained = self.ring.owned(self.name).minus(&everything);
        for range in gained.iter() {
            self.space.gain(range);
        }
        self.try_waiting();
    }

    fn establish(&mut self) {
        if self.ring.is_empty() && !self.awaiting {
            self.awaiting = true;
            self.elector.set_quorum(self.quorum);
            self.propose();
        }
    }

    fn propose(&mut self) {
        self.elector.propose();
        self.out.push(Out::Broadcast);
        self.conclude();
    }

    fn conclude(&mut self) {
        if let Some(names) = self.elector.consensus() {
            self.ring = Ring::seeded(self.universe.range(), &names);
            self.ring_updated();
            self.out.push(Out::Broadcast);
        }
    }

    pub(crate) fn tick(&mut self) {
        self.asks_left = ASKS_PER_TICK;
        if self.awaiting {
            self.propose();
        } else if !self.waiting.is_empty() {
            if self.ring.is_empty() {
                self.establish();
            } else {
                self.try_waiting();
            }
        }
        self.finish();
    }

    pub(crate) fn start(&mut self, id: String, claim: Option<Address>) {
        self.waiting.push((id, claim));
        self.try_waiting();
        self.finish();
    }

    pub(crate) fn stop(&mut self, id: &str) {
        self.waiting.retain(|(waiting, _)| waiting != id);
        if let Some(address) = self.owned.remove(id) {
            let _ = self.space.free(address);
        }
        self.finish();
    }

    /// Takes over what another owns: `rmpeer`.
    pub(crate) fn take_over(&mut self, lost: PeerName) {
        self.ring.transfer(lost, self.name);
        self.ring_updated();
        self.finish();
        self.out.push(Out::Broadcast);
    }

    /// The process ends and is started again; what it saved is there, requests are not.
    pub(crate) fn restart(&mut self) {
        for (id, _) in std::mem::take(&mut self.waiting) {
            self.out.push(Out::Started(id, None));
        }
    }

    fn try_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|(_, claim)| claim.is_none());
        for (id, claim) in waiting {
            self.try_one(id, claim);
        }
    }

    fn try_one(&mut self, id: String, claim: Option<Address>) {
        if self.ring.is_empty() {
            self.waiting.push((id, claim));
            return self.establish();
        }
        let hosts = self.universe.host_range();
        let got = match claim {
            None => self.space.allocate(hosts),
            Some(address) => match self.ring.owner(address) {
                Some(owner) if owner == self.name => {
                    if self.space.claim(address).is_err() {
                        return self.out.push(Out::Started(id, None));
                    }
                    Some(address)
                }
                Some(owner) => {
                    self.waiting.push((id, claim));
                    return self.ask(owner, Range::single(address));
                }
                None => None,
            },
        };
        if let Some(address) = got {
            self.owned.insert(id.clone(), address);
            return self.out.push(Out::Started(id, Some(address)));
        }
        self.waiting.push((id, claim));
        let donors = self.ring.donors(self.name, self.universe.range());
        let mut weighted: Vec<(f64, PeerName)> = donors
            .into_iter()
            .map(|(peer, free)| (free as f64 * self.rng.f64(), peer))
            .collect();
        weighted.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, donor) in weighted {
            if self.peers.contains(&donor) {
                return self.ask(donor, self.universe.range());
            }
        }
    }

    fn ask(&mut self, peer: PeerName, range: Range) {
        if self.peers.contains(&peer) && self.asks_left > 0 {
            self.asks_left -= 1;
            let payload = Unicast::SpaceRequest(range).encode();
            self.out.push(Out::Unicast(peer, payload));
        }
    }
}
