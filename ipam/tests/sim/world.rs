//! The world: hosts, the network between them, time, users, and faults.

use std::collections::BTreeMap;
use std::rc::Rc;

use ipam::allocator::{Allocator, Channel, Clock, Config, Init, RequestError, Response};
use ipam::leases::Identity;
use ipam::range::Address;
use proto::types::{PeerName, Time};

use crate::checks::{self, Watch};
use crate::digest::Outputs;
use crate::host::{Host, Sending};
use crate::plan::{Plan, Planted};
use crate::weave::{Bug, Weave};

pub(crate) const SECOND: u64 = 1_000_000;
/// Wall clocks start here.
const EPOCH: u64 = 1_700_000_000;
/// Everyone is in contact for this long at first, so that all have met.
pub(crate) const MEETING: u64 = 8 * SECOND;

/// A run with more steps than this has gone astray.
const STEPS_MAX: u64 = 1_000_000;
/// That many more for each pair of routers, as all greet each other.
const STEPS_PER_PAIR: u64 = 30;

pub(crate) enum Machine {
    Weft(Box<Host>),
    Weave(Box<Weave>),
}

pub(crate) struct Node {
    pub(crate) name: PeerName,
    pub(crate) machine: Machine,
    /// Whether the process runs.
    pub(crate) up: bool,
    /// Whether the host is gone forever.
    pub(crate) dead: bool,
    pub(crate) group: u8,
}

/// A container that runs, or is about to.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) host: usize,
    pub(crate) identity: Option<Identity>,
    pub(crate) address: Option<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unicast,
    Broadcast,
    Gossip,
}

pub(crate) enum Event {
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
    pub(crate) seq: u64,
    pub(crate) queue: BTreeMap<(u64, u64), Event>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) next_container: u64,
    pub(crate) watch: Watch,
    /// The answer to the last request of a scene.
    pub(crate) answer: Option<Result<Response, RequestError>>,
    pub(crate) faults: bool,
    pub(crate) users: bool,
    pub(crate) deaths_left: usize,
    pub(crate) resets_left: usize,
    /// Dead hosts that are to be removed, and on which host that was begun.
    pub(crate) to_remove: BTreeMap<usize, Option<usize>>,
    pub(crate) steps: u64,
    pub(crate) outputs: u64,
    pub(crate) digest: Outputs,
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
            answer: None,
            faults: false,
            users: true,
            deaths_left: plan.deaths,
            resets_left: plan.resets,
            to_remove: BTreeMap::new(),
            steps: 0,
            outputs: 0,
            digest: Outputs::default(),
            messages: 0,
            bytes: 0,
            plan,
        };
        world.launch();
        world
    }

    pub(crate) fn launch(&mut self) {
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

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
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
        // Originals that lack space hand the network's address to and fro as long as anybody
        // waits for one.
        self.restart_weave();
        let end = self.now + 60 * SECOND;
        self.run_until(end)?;
        if checks::at_the_end(self).is_ok() {
            return Ok(());
        }
        // A lease may have outlived its retention just now, of which not all have heard.
        let end = self.now + 90 * SECOND;
        self.run_until(end)?;
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
            let pairs = (self.nodes.len() * self.nodes.len()) as u64;
            if self.steps > STEPS_MAX + pairs * STEPS_PER_PAIR {
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

    pub(crate) fn happen(&mut self, event: Event) {
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

    pub(crate) fn others(&self, node: usize) -> Vec<usize> {
        let all = 0..self.nodes.len();
        all.filter(|other| *other != node && self.connected(node, *other))
            .collect()
    }

    pub(crate) fn index(&self, name: PeerName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
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
pub(crate) trait HandleTimeout {
    fn handle_timeout_at(&mut self, clock: Clock);
}

impl HandleTimeout for Allocator {
    fn handle_timeout_at(&mut self, clock: Clock) {
        self.handle_timeout(clock);
    }
}
