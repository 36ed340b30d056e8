//! Does what the routers want.

use std::collections::BTreeSet;
use std::rc::Rc;

use ipam::allocator::{
    Allocator, Channel, Clock, Found, Origin, Output, Request, RequestError, RequestId, Response,
};
use ipam::range::Address;
use proto::types::Time;

use crate::checks;
use crate::host::{Asked, Sending};
use crate::plan::Planted;
use crate::weave::{Out, Weave};
use crate::world::{Event, HandleTimeout, Kind, MEETING, Machine, SECOND, World};

impl World {
    pub(crate) fn weave(&mut self, node: usize, act: impl FnOnce(&mut Weave)) {
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

    pub(crate) fn weave_out(&mut self, node: usize, out: Out) {
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

    pub(crate) fn pump(&mut self, node: usize) {
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
            self.outputs += 1;
            let now = self.plan.crash_at == Some(self.outputs);
            if now || (crash && self.now > MEETING) {
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

    pub(crate) fn wake(&mut self, node: usize, at: u64) {
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        if host.wake == at {
            host.wake = 0;
            self.weft(node, Allocator::handle_timeout_at);
        }
    }

    pub(crate) fn execute(&mut self, node: usize, output: Output) {
        let name = self.nodes[node].name;
        self.digest.add(self.now, node, &output);
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

    pub(crate) fn send_state(&mut self, node: usize, token: u64, payload: Option<Vec<u8>>) {
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

    pub(crate) fn sync(&mut self, node: usize) {
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

    pub(crate) fn crash(&mut self, node: usize) {
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
    pub(crate) fn start(&mut self, node: usize) {
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

    pub(crate) fn insist(&mut self, node: usize, request: Request) {
        self.request(node, Asked::Must(request.clone()), None, request);
    }

    pub(crate) fn replied(
        &mut self,
        node: usize,
        id: RequestId,
        result: Result<Response, RequestError>,
    ) {
        let Machine::Weft(host) = &mut self.nodes[node].machine else {
            return;
        };
        let Some(asked) = host.requests.remove(&id) else {
            return self
                .watch
                .fail(format!("request {id:?} was answered twice"));
        };
        self.note(|| format!("answer {id:?}: {result:?}"));
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
            (Asked::Scene, result) => self.answer = Some(result),
            (Asked::Remove(dead), Ok(_)) => {
                self.to_remove.remove(&dead);
            }
            (Asked::Reset, Ok(_)) => {
                self.die(node);
            }
            _ => {}
        }
    }
}
