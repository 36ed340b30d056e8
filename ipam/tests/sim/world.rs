//! The world: hosts, the network between them, time, users, and faults.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ipam::allocator::{
    Allocator, Channel, Clock, Config, Delivery, Found, Incoming, Init, Origin, Output, Peer,
    Request, RequestError, RequestId, Response,
};
use ipam::leases::{Identity, IdentityKind};
use ipam::range::{Address, Range};
use proto::types::{PeerName, Time};

use crate::checks::{self, Watch};
use crate::host::{Asked, Host, Sending};
use crate::plan::{Plan, Planted};
use crate::weave::{Bug, Out, Weave};

pub(crate) const SECOND: u64 = 1_000_000;
/// Wall clocks start here.
const EPOCH: u64 = 1_700_000_000;
/// Everyone is in contact for this long at first, so that all have met.
const MEETING: u64 = 8 * SECOND;

/// A run with more steps than this has gone astray.
const STEPS_MAX: u64 = 1_000_000;

pub(crate) enum Machine {
    Weft(Box<Host>),
    Weave(Box<Weave>),
}

pub(crate) struct Node {
    pub(crate) name: PeerName,
    pub(crate) machine: Machine,
    /// Whether the process runs.
    pub(crate) up: bool,
    /// Whether the host is gone for ever.
    pub(crate) dead: bool,
    group: u8,
}

/// A container that runs, or is about to.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) host: usize,
    pub(crate) identity: Option<Identity>,
    pub(crate) address: Option<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unicast,
    Broadcast,
    Gossip,
}

enum Event {
    Deliver {
        to: usize,
        from: usize,
        kind: Kind,
        channel: Channel,
        payload: Rc<[u8]>,
    },
    Wake(usize, u64),
    Sync(usize),
    Topology(usize),
    Gossip(usize),
    Broadcast(usize),
    Restart(usize),
    WeaveTick(usize),
    User,
    Fault,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) containers: BTreeMap<String, Container>,
    next_container: u64,
    pub(crate) watch: Watch,
    faults: bool,
    users: bool,
    deaths_left: usize,
    resets_left: usize,
    /// Dead hosts that are to be removed, and on which host that was begun.
    to_remove: BTreeMap<usize, Option<usize>>,
    pub(crate) steps: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, tracing: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let count = plan.weft + plan.weave;
        let names: Vec<PeerName> = (0..count)
            .map(|i| PeerName::from_u64(0x0200_0000_0001 + i as u64 * 0x1_0001).unwrap())
            .collect();
        let nodes = (0..count)
            .map(|i| Node {
                name: names[i],
                machine: make(&plan, i, &names, &mut rng),
                up: true,
                dead: false,
                group: 0,
            })
            .collect();
        let mut world = World {
            now: SECOND,
            seq: 0,
            queue: BTreeMap::new(),
            rng,
            nodes,
            containers: BTreeMap::new(),
            next_container: 0,
            watch: Watch::new(tracing),
            faults: false,
            users: true,
            deaths_left: plan.deaths,
            resets_left: plan.resets,
            to_remove: BTreeMap::new(),
            steps: 0,
            messages: 0,
            bytes: 0,
            plan,
        };
        world.launch();
        world
    }

    fn launch(&mut self) {
        for node in 0..self.nodes.len() {
            match &mut self.nodes[node].machine {
                Machine::Weft(_) => self.start(node),
                Machine::Weave(weave) => {
                    if self.plan.seeded {
                        let names: Vec<PeerName> = self.nodes.iter().map(|n| n.name).collect();
                        let Machine::Weave(weave) = &mut self.nodes[node].machine else {
                            return;
                        };
                        weave.seed(&names);
                    } else {
                        weave.out.clear();
                    }
                    let at = self.rng.u64(0..5 * SECOND);
                    self.after(at, Event::WeaveTick(node));
                }
            }
            let at = self.rng.u64(0..SECOND);
            self.after(at, Event::Topology(node));
            let at = self.rng.u64(0..10 * SECOND);
            self.after(at, Event::Gossip(node));
        }
        self.after(SECOND, Event::User);
        self.after(MEETING, Event::Fault);
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now + delay, self.seq), event);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        self.watch.note(now, text);
    }

    /// Runs to the end; an error says what went wrong.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.faults = true;
        let end = self.now + self.plan.seconds * SECOND;
        self.run_until(end)?;
        self.note(|| "the faults stop".to_owned());
        self.faults = false;
        self.users = false;
        self.heal();
        let end = self.now + 30 * SECOND;
        self.run_until(end)?;
        self.finish_removals();
        let end = self.now + 400 * SECOND;
        self.run_until(end)?;
        if self.finish_removals() {
            let end = self.now + 400 * SECOND;
            self.run_until(end)?;
        }
        checks::at_the_end(self)
    }

    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), String> {
        while let Some(((at, seq), event)) = self.queue.pop_first() {
            if at > end {
                self.queue.insert((at, seq), event);
                break;
            }
            self.now = at;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err("it never ends".to_owned());
            }
            self.happen(event);
            if let Some(failure) = self.watch.failure.take() {
                return Err(failure);
            }
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver {
                to,
                from,
                kind,
                channel,
                payload,
            } => self.deliver(to, from, kind, channel, &payload),
            Event::Wake(node, at) => self.wake(node, at),
            Event::Sync(node) => self.sync(node),
            Event::Topology(node) => self.tell_peers(node),
            Event::Gossip(node) => self.gossip(node),
            Event::Broadcast(node) => {
                if let Machine::Weft(host) = &mut self.nodes[node].machine {
                    host.broadcast_due = false;
                }
                let sending = Sending::Broadcast(self.others(node));
                self.want_state(node, Channel::Ring, sending, None, false);
            }
            Event::Restart(node) => self.start(node),
            Event::WeaveTick(node) => {
                if !self.nodes[node].dead {
                    self.weave(node, Weave::tick);
                    self.after(5 * SECOND, Event::WeaveTick(node));
                }
            }
            Event::User => {
                if self.users {
                    self.user();
                    let delay = self.rng.u64(0..self.plan.pace * 2);
                    self.after(delay, Event::User);
                }
            }
            Event::Fault => {
                if self.faults {
                    self.fault();
                    let delay = self.rng.u64(0..10 * SECOND);
                    self.after(delay, Event::Fault);
                }
            }
        }
    }

    pub(crate) fn clock(&self, node: usize) -> Clock {
        let skew = match &self.nodes[node].machine {
            Machine::Weft(host) => host.skew,
            Machine::Weave(_) => 0,
        };
        let wall = EPOCH + self.now / SECOND;
        Clock {
            now: Time::from_micros(self.now),
            wall: wall.saturating_add_signed(skew),
        }
    }

    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.up && b.up && !a.dead && !b.dead && a.group == b.group
    }

    fn others(&self, node: usize) -> Vec<usize> {
        let all = 0..self.nodes.len();
        all.filter(|other| *other != node && self.connected(node, *other))
            .collect()
    }

    pub(crate) fn index(&self, name: PeerName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    // The network.

    fn send(&mut self, from: usize, to: usize, kind: Kind, channel: Channel, payload: Rc<[u8]>) {
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

    fn deliver(&mut self, to: usize, from: usize, kind: Kind, channel: Channel, payload: &[u8]) {
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
    fn bumped(&self, to: usize, channel: Channel, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
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

    fn gossip(&mut self, node: usize) {
        if self.nodes[node].dead {
            return;
        }
        self.after(30 * SECOND, Event::Gossip(node));
        let mut to = self.others(node);
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

    fn want_state(
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

    fn tell_peers(&mut self, node: usize) {
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
            if before.contains(&other) {
                continue;
            }
            let name = Some(self.nodes[other].name);
            for channel in [Channel::Ring, Channel::Leases] {
                self.want_state(node, channel, Sending::Gossip(vec![other]), name, true);
            }
        }
    }

    /// Everyone hears of a changed topology, soon but not at once.
    fn topology_changed(&mut self) {
        for node in 0..self.nodes.len() {
            let delay = self.rng.u64(50_000..1_500_000);
            self.after(delay, Event::Topology(node));
        }
    }

    // A router of the original.

    fn weave(&mut self, node: usize, act: impl FnOnce(&mut Weave)) {
        let Machine::Weave(weave) = &mut self.nodes[node].machine else {
            return;
        };
        act(weave);
        let outs = std::mem::take(&mut weave.out);
        for out in outs {
            self.weave_out(node, out);
        }
        checks::ownership(self, node);
    }

    fn weave_out(&mut self, node: usize, out: Out) {
        let Machine::Weave(weave) = &self.nodes[node].machine else {
            return;
        };
        match out {
            Out::Unicast(to, payload) => {
                if let Some(to) = self.index(to) {
                    self.send(node, to, Kind::Unicast, Channel::Ring, payload.into());
                }
            }
            Out::Broadcast => {
                let payload: Rc<[u8]> = weave.payload().into();
                for to in self.others(node) {
                    self.send(
                        node,
                        to,
                        Kind::Broadcast,
                        Channel::Ring,
                        Rc::clone(&payload),
                    );
                }
            }
            Out::Started(id, Some(address)) => checks::started(self, node, &id, address),
            Out::Started(id, None) => {
                self.containers.remove(&id);
            }
            Out::Refused(error) => {
                let name = self.nodes[node].name;
                self.watch
                    .fail(format!("original {name} closes a connection: {error}"));
            }
            Out::Dies(error) => {
                let name = self.nodes[node].name;
                self.watch
                    .fail(format!("original {name} would die: {error}"));
            }
        }
    }

    // A weft router.

    pub(crate) fn weft(&mut self, node: usize, act: impl FnOnce(&mut Allocator, Clock)) {
        let clock = self.clock(node);
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        let Some(allocator) = &mut host.allocator else {
            return;
        };
        act(allocator, clock);
        self.pump(node);
    }

    fn pump(&mut self, node: usize) {
        // Whatever changes the state makes a batch.
        let mut changed = false;
        loop {
            let crash = self.faults && self.rng.f64() < self.plan.crash;
            let Machine::Weft(host) = &mut self.nodes[node].machine else {
                return;
            };
            let Some(allocator) = &mut host.allocator else {
                return;
            };
            let Some(output) = allocator.poll_output() else {
                break;
            };
            if crash && self.now > MEETING {
                return self.crash(node);
            }
            changed |= matches!(output, Output::Persist(_));
            self.execute(node, output);
        }
        if changed {
            checks::weft(self, node);
        }
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if let Some(allocator) = &host.allocator {
            let at = allocator.poll_timeout().as_micros().max(self.now + 1);
            if host.wake != at {
                host.wake = at;
                let delay = at - self.now;
                self.after(delay, Event::Wake(node, at));
            }
        }
    }

    fn wake(&mut self, node: usize, at: u64) {
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if host.wake == at {
            host.wake = 0;
            self.weft(node, Allocator::handle_timeout_at);
        }
    }

    fn execute(&mut self, node: usize, output: Output) {
        let name = self.nodes[node].name;
        self.note(|| format!("{name} -> {}", checks::brief(&output)));
        match output {
            Output::Persist(batch) => {
                let Machine::Weft(host) = &mut self.nodes[node].machine else {
                    return;
                };
                let id = batch.id;
                host.disk.queued.push_back(batch);
                if !host.disk.sync_due {
                    host.disk.sync_due = true;
                    let delay = self.rng.u64(100..15_000);
                    self.after(delay, Event::Sync(node));
                }
                if self.plan.planted == Planted::ReplyBeforeSave {
                    let clock = self.clock(node);
                    if let Machine::Weft(host) = &mut self.nodes[node].machine
                        && let Some(allocator) = &mut host.allocator
                    {
                        allocator.handle_persisted(clock, id, Ok(()));
                    }
                }
            }
            Output::Reply { request, result } => self.replied(node, request, result),
            Output::Unicast {
                channel,
                to,
                payload,
            } => {
                checks::sent(self, node, channel, true, &payload);
                if let Some(to) = self.index(to) {
                    self.send(node, to, Kind::Unicast, channel, payload.into());
                }
            }
            Output::BroadcastState => {
                // Several in a short time are sent as one, as the mesh does.
                let Machine::Weft(host) = &mut self.nodes[node].machine else {
                    return;
                };
                if !host.broadcast_due {
                    host.broadcast_due = true;
                    let delay = self.rng.u64(500..10_000);
                    self.after(delay, Event::Broadcast(node));
                }
            }
            Output::Broadcast { channel, payload } => {
                let payload: Rc<[u8]> = payload.into();
                for to in self.others(node) {
                    self.send(node, to, Kind::Broadcast, channel, Rc::clone(&payload));
                }
            }
            // Broadcasts reach everyone directly here.
            Output::Relay { .. } => {}
            Output::State { token, payload } => self.send_state(node, token, payload),
            Output::Alarm(alarm) => checks::alarm(self, node, alarm),
            Output::Event(event) => checks::event(self, node, &event),
        }
    }

    fn send_state(&mut self, node: usize, token: u64, payload: Option<Vec<u8>>) {
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        let Some((leases, sending)) = host.sending.remove(&token) else {
            return;
        };
        let Some(payload) = payload else {
            return;
        };
        let channel = if leases {
            Channel::Leases
        } else {
            Channel::Ring
        };
        checks::sent(self, node, channel, false, &payload);
        let payload: Rc<[u8]> = payload.into();
        let (kind, to) = match sending {
            Sending::Gossip(to) => (Kind::Gossip, to),
            Sending::Broadcast(to) => (Kind::Broadcast, to),
        };
        for to in to {
            let Machine::Weft(host) = &self.nodes[node].machine else {
                return;
            };
            let name = self.nodes[to].name;
            let silent = host.allocator.as_ref().is_some_and(|a| a.is_silent(name));
            if !silent {
                self.send(node, to, kind, channel, Rc::clone(&payload));
            }
        }
    }

    fn sync(&mut self, node: usize) {
        let clock = self.clock(node);
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if !host.disk.sync_due {
            return;
        }
        host.disk.sync_due = false;
        let Some(allocator) = &mut host.allocator else {
            return;
        };
        let Some(first) = host.disk.queued.front().map(|batch| batch.id) else {
            return;
        };
        if self.now < host.disk.full_until {
            host.disk.queued.clear();
            allocator.handle_persisted(clock, first, Err("no space left on device".to_owned()));
        } else if let Some(last) = host.disk.sync() {
            allocator.handle_persisted(clock, last, Ok(()));
        }
        self.pump(node);
    }

    fn crash(&mut self, node: usize) {
        let name = self.nodes[node].name;
        self.note(|| format!("{name} crashes"));
        self.nodes[node].up = false;
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        host.allocator = None;
        host.disk.crash(&mut self.rng);
        host.sending.clear();
        host.neighbours.clear();
        host.wake = 0;
        for (_, asked) in std::mem::take(&mut host.requests) {
            if let Asked::Start(id) = asked {
                // The caller sees its connection close, and does not start the container.
                self.containers.remove(&id);
            }
        }
        if host.reset {
            // Whoever handed over is not started again, however far it came.
            return self.die(node);
        }
        let delay = self.rng.u64(100_000..5 * SECOND);
        self.after(delay, Event::Restart(node));
        self.topology_changed();
    }

    /// Starts the process of a weft router, and tells it what runs on its host.
    fn start(&mut self, node: usize) {
        if self.nodes[node].dead || matches!(&self.nodes[node].machine, Machine::Weft(h) if h.reset)
        {
            return;
        }
        self.nodes[node].up = true;
        let clock = self.clock(node);
        let running: Vec<(String, Address)> = self
            .containers
            .iter()
            .filter(|(_, c)| c.host == node)
            .filter_map(|(id, c)| Some((id.clone(), c.address?)))
            .collect();
        let len = self.plan.universe.len;
        let forgets = self.plan.planted == Planted::ForgetsAddresses;
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if forgets {
            host.disk
                .durable
                .retain(|key, _| key.first() != Some(&b'a'));
        }
        let stored = host.disk.load();
        let config = host.config.clone();
        match Allocator::new(clock, config, stored, Origin::Store) {
            Ok(allocator) => host.allocator = Some(allocator),
            Err(error) => return self.watch.fail(format!("does not start: {error}")),
        }
        self.pump(node);
        let ids: BTreeSet<String> = running.iter().map(|(id, _)| id.clone()).collect();
        let addresses = running
            .into_iter()
            .filter(|_| !forgets)
            .map(|(id, address)| Found {
                id,
                cidr: ipam::range::Cidr { address, len },
                container: true,
            })
            .collect();
        self.insist(node, Request::Found { addresses });
        self.insist(node, Request::Prune { running: ids });
        self.topology_changed();
    }

    pub(crate) fn request(
        &mut self,
        node: usize,
        asked: Asked,
        deadline: Option<u64>,
        request: Request,
    ) {
        let name = self.nodes[node].name;
        self.note(|| format!("{name} <- {request:?}"));
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if host.allocator.is_none() {
            if let Asked::Start(id) = asked {
                self.containers.remove(&id);
            }
            return;
        }
        host.next_request += 1;
        let id = RequestId(host.next_request);
        host.requests.insert(id, asked);
        let deadline = deadline.map(|seconds| Time::from_micros(self.now + seconds * SECOND));
        self.weft(node, |allocator, clock| {
            allocator.handle_request(clock, id, deadline, request);
        });
    }

    fn insist(&mut self, node: usize, request: Request) {
        self.request(node, Asked::Must(request.clone()), None, request);
    }

    fn replied(&mut self, node: usize, id: RequestId, result: Result<Response, RequestError>) {
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        let Some(asked) = host.requests.remove(&id) else {
            return self
                .watch
                .fail(format!("request {id:?} was answered twice"));
        };
        if let (Asked::Start(id), Ok(_)) = (&asked, &result)
            && !self.containers.contains_key(id)
        {
            // Its host was reset meanwhile.
            return;
        }
        match (asked, result) {
            (Asked::Start(container), Ok(Response::Address { cidr, .. })) => {
                checks::durable(self, node, &container, cidr.address);
                checks::started(self, node, &container, cidr.address);
            }
            (Asked::Start(container), Ok(Response::Done)) => {
                // A claim names its address itself.
                let claimed = self.watch.claims.remove(&container);
                if let Some(address) = claimed {
                    checks::durable(self, node, &container, address);
                    checks::started(self, node, &container, address);
                }
            }
            (Asked::Start(container), _) => {
                self.watch.claims.remove(&container);
                self.containers.remove(&container);
            }
            (Asked::Stop(container), Err(RequestError::Store(_))) => {
                // It is not released yet; the caller tries again.
                self.insist(node, Request::Delete { id: container });
            }
            (Asked::Must(request), Err(RequestError::Store(_))) => self.insist(node, request),
            (Asked::Remove(dead), Ok(_)) => {
                self.to_remove.remove(&dead);
            }
            (Asked::Reset, Ok(_)) => {
                self.die(node);
            }
            _ => {}
        }
    }

    // Users.

    fn user(&mut self) {
        let living: Vec<usize> = (0..self.nodes.len())
            .filter(|node| !self.nodes[*node].dead && self.nodes[*node].up)
            .collect();
        let Some(node) = self.rng.choice(&living).copied() else {
            return;
        };
        match self.rng.u8(0..100) {
            0..45 => self.start_container(node),
            45..90 => self.stop_container(),
            90..95 => self.claim(node),
            95..97 => self.reserve(node),
            _ => self.lease_change(node),
        }
    }

    fn identity(&mut self) -> Option<Identity> {
        if self.plan.identities == 0 || self.rng.u8(0..3) == 0 {
            return None;
        }
        let number = self.rng.usize(0..self.plan.identities);
        let kind = if number % 4 == 3 {
            IdentityKind::Derived
        } else {
            IdentityKind::Explicit
        };
        Identity::new(kind, &format!("service-{number}")).ok()
    }

    fn new_container(&mut self, host: usize, identity: Option<Identity>) -> String {
        self.next_container += 1;
        let id = format!("c{}", self.next_container);
        let container = Container {
            host,
            identity,
            address: None,
        };
        self.containers.insert(id.clone(), container);
        id
    }

    fn start_container(&mut self, node: usize) {
        let weave = matches!(self.nodes[node].machine, Machine::Weave(_));
        let identity = if weave { None } else { self.identity() };
        let id = self.new_container(node, identity.clone());
        if weave {
            return self.weave(node, |weave| weave.start(id, None));
        }
        let deadline = Some(self.rng.u64(1..40));
        let request = Request::Allocate {
            id: id.clone(),
            subnet: None,
            identity,
            container: true,
        };
        self.request(node, Asked::Start(id), deadline, request);
    }

    fn claim(&mut self, node: usize) {
        let hosts = self.plan.universe.host_range();
        let address = hosts.start.plus(self.rng.u32(0..hosts.size()));
        let id = self.new_container(node, None);
        if matches!(self.nodes[node].machine, Machine::Weave(_)) {
            return self.weave(node, |weave| weave.start(id, Some(address)));
        }
        self.watch.claims.insert(id.clone(), address);
        let request = Request::Claim {
            id: id.clone(),
            cidr: self.plan.universe.with_address(address),
            identity: None,
            container: true,
            no_error_on_unknown: false,
            force: self.rng.u8(0..4) == 0,
        };
        let deadline = Some(self.rng.u64(1..40));
        self.request(node, Asked::Start(id), deadline, request);
    }

    fn stop_container(&mut self) {
        let running: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.address.is_some() && !self.nodes[c.host].dead)
            .map(|(id, _)| id.clone())
            .collect();
        if let Some(id) = self.rng.choice(&running).cloned() {
            self.stop(&id);
        }
    }

    fn stop(&mut self, id: &str) {
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        let node = container.host;
        let name = self.nodes[node].name;
        self.note(|| format!("{id} on {name} stops"));
        if let Some(address) = container.address {
            self.watch.in_use.remove(&address);
        }
        match self.nodes[node].machine {
            Machine::Weave(_) => self.weave(node, |weave| weave.stop(id)),
            Machine::Weft(_) => {
                let request = Request::Delete { id: id.to_owned() };
                self.request(node, Asked::Stop(id.to_owned()), None, request);
            }
        }
    }

    fn reserve(&mut self, node: usize) {
        let Some(identity) = self.identity() else {
            return;
        };
        let hosts = self.plan.universe.host_range();
        let address = hosts.start.plus(self.rng.u32(0..hosts.size()));
        let request = Request::LeaseReserve {
            identity,
            subnet: None,
            address: self.rng.bool().then_some(address),
            pinned: false,
        };
        self.request(node, Asked::Other, Some(20), request);
    }

    fn lease_change(&mut self, node: usize) {
        let Some(identity) = self.identity() else {
            return;
        };
        let key = identity.key(self.plan.universe);
        let request = match self.rng.u8(0..4) {
            0 => Request::LeaseRelease { key, force: false },
            n => Request::LeasePin {
                key,
                pinned: n == 1,
            },
        };
        self.request(node, Asked::Other, Some(20), request);
    }

    // Faults.

    fn fault(&mut self) {
        match self.rng.u8(0..12) {
            0..4 if self.plan.partitions => self.partition(),
            4..6 if self.plan.partitions => self.join(),
            6 if self.plan.full_disks => {
                let node = self.rng.usize(0..self.nodes.len());
                let until = self.now + self.rng.u64(0..20 * SECOND);
                if let Machine::Weft(host) = &mut self.nodes[node].machine {
                    host.disk.full_until = until;
                }
            }
            7 if self.plan.skew => {
                let node = self.rng.usize(0..self.nodes.len());
                let skew = self.rng.i64(-100_000..100_000);
                if let Machine::Weft(host) = &mut self.nodes[node].machine {
                    host.skew = skew;
                }
            }
            8 if self.deaths_left > 0 => {
                if let Some(node) = self.living_weft() {
                    self.deaths_left -= 1;
                    self.die(node);
                    self.to_remove.insert(node, None);
                }
            }
            9 if self.resets_left > 0 => {
                if let Some(node) = self.living_weft() {
                    self.resets_left -= 1;
                    self.reset(node);
                }
            }
            10 if self.plan.crash > 0.0 => self.restart_weave(),
            _ => self.remove_dead(),
        }
        if self.plan.planted == Planted::RemovesLiving {
            self.remove_living();
        }
    }

    fn partition(&mut self) {
        for node in &mut self.nodes {
            node.group = self.rng.u8(0..2);
        }
        let groups: Vec<u8> = self.nodes.iter().map(|node| node.group).collect();
        self.note(|| format!("partition {groups:?}"));
        self.topology_changed();
    }

    fn join(&mut self) {
        for node in &mut self.nodes {
            node.group = 0;
        }
        self.note(|| "no partition".to_owned());
        self.topology_changed();
    }

    fn living_weft(&mut self) -> Option<usize> {
        let living: Vec<usize> = (0..self.plan.weft)
            .filter(|node| !self.nodes[*node].dead && self.nodes[*node].up)
            .collect();
        if living.len() < 3 {
            return None;
        }
        self.rng.choice(&living).copied()
    }

    /// The host is gone for ever, with all that ran on it.
    fn die(&mut self, node: usize) {
        let name = self.nodes[node].name;
        self.note(|| format!("{name} is gone for ever"));
        self.nodes[node].dead = true;
        self.nodes[node].up = false;
        let gone: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.host == node)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(address) = self.containers.remove(&id).and_then(|c| c.address) {
                self.watch.in_use.remove(&address);
            }
        }
        if let Machine::Weft(host) = &mut self.nodes[node].machine {
            host.allocator = None;
            host.requests.clear();
            host.usable.clear();
        }
        self.topology_changed();
    }

    /// The host leaves by handing everything over; its containers end first.
    fn reset(&mut self, node: usize) {
        let gone: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.host == node)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(address) = self.containers.remove(&id).and_then(|c| c.address) {
                self.watch.in_use.remove(&address);
            }
        }
        if let Machine::Weft(host) = &mut self.nodes[node].machine {
            host.reset = true;
        }
        self.request(node, Asked::Reset, None, Request::Shutdown);
    }

    fn remove_dead(&mut self) {
        let waiting: Vec<usize> = self.to_remove.keys().copied().collect();
        if let Some(dead) = self.rng.choice(&waiting).copied() {
            self.remove(dead);
        }
    }

    /// Removes a dead host, on the host where that was begun before, if it lives.
    fn remove(&mut self, dead: usize) {
        let begun = self.to_remove.get(&dead).copied().flatten();
        let on = match begun.filter(|on| !self.nodes[*on].dead) {
            Some(on) => on,
            None => match self.living_or_any() {
                Some(on) => on,
                None => return,
            },
        };
        self.to_remove.insert(dead, Some(on));
        let request = Request::RemovePeer {
            peer: self.nodes[dead].name.to_string(),
            confirmed: true,
        };
        self.request(on, Asked::Remove(dead), Some(100), request);
    }

    fn living_or_any(&mut self) -> Option<usize> {
        let living: Vec<usize> = (0..self.plan.weft)
            .filter(|node| !self.nodes[*node].dead && self.nodes[*node].up)
            .collect();
        self.rng.choice(&living).copied()
    }

    fn remove_living(&mut self) {
        let living: Vec<usize> = (0..self.nodes.len())
            .filter(|node| !self.nodes[*node].dead)
            .collect();
        let (Some(on), Some(whom)) = (self.living_or_any(), self.rng.choice(&living).copied())
        else {
            return;
        };
        let request = Request::RemovePeer {
            peer: self.nodes[whom].name.to_string(),
            confirmed: true,
        };
        self.request(on, Asked::Other, Some(100), request);
    }

    fn restart_weave(&mut self) {
        for node in self.plan.weft..self.nodes.len() {
            let Machine::Weave(weave) = &self.nodes[node].machine else {
                continue;
            };
            if !weave.ring.is_empty() {
                self.weave(node, Weave::restart);
            }
        }
    }

    // The end.

    fn heal(&mut self) {
        for node in &mut self.nodes {
            node.group = 0;
            if let Machine::Weft(host) = &mut node.machine {
                host.disk.full_until = 0;
                host.skew = 0;
            }
        }
        self.topology_changed();
    }

    /// Removes dead hosts that still own something; whether there were any.
    fn finish_removals(&mut self) -> bool {
        let mut any = false;
        let dead: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].dead)
            .collect();
        for dead in dead {
            let name = self.nodes[dead].name;
            let owns = (0..self.plan.weft).any(|node| match &self.nodes[node].machine {
                Machine::Weft(host) => host.allocator.as_ref().is_some_and(|allocator| {
                    let mut takeovers = allocator.takeover_status().into_iter();
                    allocator.ring().has_owner(name)
                        || takeovers.any(|takeover| takeover.waiting.contains(&name))
                }),
                Machine::Weave(_) => false,
            });
            if self.to_remove.contains_key(&dead) || owns {
                any = true;
                self.remove(dead);
            }
        }
        any
    }

    pub(crate) fn usable(&self, node: usize) -> Cow<'_, [Range]> {
        match &self.nodes[node].machine {
            Machine::Weft(host) => Cow::Borrowed(&host.usable),
            Machine::Weave(weave) => Cow::Owned(weave.ring.owned_ranges(weave.name)),
        }
    }
}

fn make(plan: &Plan, index: usize, names: &[PeerName], rng: &mut fastrand::Rng) -> Machine {
    let count = plan.weft + plan.weave;
    let seed = rng.u64(..);
    if index >= plan.weft {
        let mut weave = Weave::new(names[index], plan.universe, count / 2 + 1, seed);
        if let Planted::Weave(bug) = plan.planted {
            weave.bug = bug;
        } else {
            weave.bug = Bug::None;
        }
        return Machine::Weave(Box::new(weave));
    }
    let init = if plan.seeded {
        Init::Seed(names.to_vec())
    } else {
        Init::Consensus(Some(count))
    };
    Machine::Weft(Box::new(Host::new(Config {
        name: names[index],
        nickname: format!("n{}", names[index]),
        universe: plan.universe,
        universe_defaulted: false,
        default_subnet: None,
        init,
        uid: seed | 1,
        lease_retention: plan.retention,
        await_found: true,
        rng_seed: seed,
    })))
}

/// So that a wake can be passed as a plain function.
trait HandleTimeout {
    fn handle_timeout_at(&mut self, clock: Clock);
}

impl HandleTimeout for Allocator {
    fn handle_timeout_at(&mut self, clock: Clock) {
        self.handle_timeout(clock);
    }
}
