//! What must be true after every step, and what must be true at the end.

use std::collections::{BTreeMap, VecDeque};

use ipam::RangeSet;
use ipam::allocator::{Alarm, Allocator, Channel, Event, Output};
use ipam::leases::wire::Message;
use ipam::leases::{IdentityKind, Lease, LeaseKey};
use ipam::messages::{Unicast, decode_state};
use ipam::persist::Stored;
use ipam::range::Cidr;
use ipam::range::{Address, Range};

use crate::plan::Planted;
use crate::world::{Machine, SECOND, World};

/// Lines of the trace that are kept.
const TRACE_LINES: usize = 4000;
/// What happens within this time on two hosts happens at the same time: a disk syncs, and a
/// message arrives.
const AT_ONCE: u64 = SECOND / 20;

/// What is watched over.
pub(crate) struct Watch {
    tracing: bool,
    pub(crate) trace: VecDeque<String>,
    pub(crate) failure: Option<String>,
    /// The container that has each address.
    pub(crate) in_use: BTreeMap<Address, String>,
    /// The addresses that containers claim.
    pub(crate) claims: BTreeMap<String, Address>,
    pub(crate) alarms: Vec<Alarm>,
    /// The address that each explicit identity had last and when it got that, while nothing excuses
    /// another one.
    sticky: BTreeMap<String, (Address, u64)>,
    pub(crate) moved: u64,
    pub(crate) kept: u64,
    pub(crate) started: u64,
}

impl Watch {
    pub(crate) fn new(tracing: bool) -> Watch {
        Watch {
            tracing,
            trace: VecDeque::new(),
            failure: None,
            in_use: BTreeMap::new(),
            claims: BTreeMap::new(),
            alarms: Vec::new(),
            sticky: BTreeMap::new(),
            moved: 0,
            kept: 0,
            started: 0,
        }
    }

    pub(crate) fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        if self.tracing {
            if self.trace.len() >= TRACE_LINES {
                self.trace.pop_front();
            }
            let seconds = now as f64 / 1e6;
            self.trace.push_back(format!("{seconds:10.4} {}", text()));
        }
    }

    pub(crate) fn fail(&mut self, text: String) {
        self.failure.get_or_insert(text);
    }
}

/// Returns a short text of an output, for the trace.
pub(crate) fn brief(output: &Output) -> String {
    match output {
        Output::Persist(batch) => format!("{batch:?}"),
        Output::Unicast {
            channel: Channel::Ring,
            to,
            payload,
        } => match Unicast::decode(payload) {
            Ok(Unicast::RingUpdate(state)) => format!("to {to}: ring {}", ring_text(state)),
            Ok(other) => format!("to {to}: {other:?}"),
            Err(error) => format!("to {to}: {error}"),
        },
        Output::Unicast { to, payload, .. } => match Message::decode(payload) {
            Ok(message) => {
                let text = format!("{message:?}");
                let end = text.floor_char_boundary(600);
                format!("to {to}: {}", &text[..end])
            }
            Err(error) => format!("to {to}: {error}"),
        },
        Output::State { token, payload } => {
            let ring = payload.as_deref().map(ring_text);
            format!("state {token}: {}", ring.unwrap_or_default())
        }
        Output::Broadcast { payload, .. } => format!("broadcast of {} bytes", payload.len()),
        other => format!("{other:?}"),
    }
}

fn ring_text(state: &[u8]) -> String {
    let Ok(received) = decode_state(state, |_| false) else {
        return "-".to_owned();
    };
    let Some((_, ring)) = received.state.ring else {
        return "none".to_owned();
    };
    let entries = ring.entries.iter();
    let texts: Vec<String> = entries
        .map(|e| format!("{}:{}v{}f{}", e.token, e.peer, e.version, e.free))
        .collect();
    texts.join(" ")
}

/// After each step of a weft router: its state fits together, and nobody else owns what it owns.
pub(crate) fn weft(world: &mut World, node: usize) {
    let name = world.nodes[node].name;
    let Machine::Weft(host) = &world.nodes[node].machine else {
        return;
    };
    let Some(allocator) = &host.allocator else {
        return;
    };
    if let Err(error) = allocator.check() {
        return world.watch.fail(format!("{name}: {error}"));
    }
    ownership(world, node);
}

fn usable(allocator: &Allocator, name: proto::types::PeerName) -> Vec<Range> {
    let held = allocator.space().held_ranges();
    if held.is_empty() {
        return allocator.ring().owned_ranges(name);
    }
    let owned = allocator.ring().owned(name);
    owned.minus(held).iter().collect()
}

/// No address may be used by two routers by what each of them believes.
pub(crate) fn ownership(world: &mut World, node: usize) {
    let name = world.nodes[node].name;
    if world.plan.planted == Planted::RemovesLiving {
        // Misuse may do that: it is the alarms that count.
        return;
    }
    if let Machine::Weft(host) = &mut world.nodes[node].machine
        && let Some(allocator) = &host.allocator
    {
        let usable = usable(allocator, name);
        if usable == host.usable {
            return;
        }
        host.usable = usable;
    }
    let mine = world.usable(node).into_owned();
    for other in 0..world.nodes.len() {
        if other == node || world.nodes[other].dead {
            continue;
        }
        let theirs = world.usable(other);
        if let Some(range) = overlap(&mine, &theirs) {
            let other = world.nodes[other].name;
            return world
                .watch
                .fail(format!("both {name} and {other} own {range}"));
        }
    }
}

/// Returns the first range that two sorted lists have in common.
fn overlap(a: &[Range], b: &[Range]) -> Option<Range> {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let common = x.intersect(y);
        if !common.is_empty() {
            return Some(common);
        }
        if x.end <= y.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

/// A container was given an address: nobody else may have it.
pub(crate) fn started(world: &mut World, node: usize, id: &str, address: Address) {
    let name = world.nodes[node].name;
    world.watch.started += 1;
    world.note(|| format!("{id} on {name} runs with {address}"));
    let Some(container) = world.containers.get_mut(id) else {
        return world
            .watch
            .fail(format!("{id} was given {address} though it is gone"));
    };
    container.address = Some(address);
    let identity = container.identity.clone();
    if let Some(other) = world.watch.in_use.insert(address, id.to_owned()) {
        return world.watch.fail(format!(
            "{address} is used by {other}, and given to {id} on {name}"
        ));
    }
    let Some(identity) = identity.filter(|i| i.kind == IdentityKind::Explicit) else {
        return;
    };
    let others: Vec<String> = world
        .containers
        .iter()
        .filter(|(other, container)| {
            let same = container.identity.as_ref() == Some(&identity);
            *other != id && container.address.is_some() && same
        })
        .map(|(other, _)| other.clone())
        .collect();
    let (calm, now) = (is_calm(world), world.now);
    let before = world.watch.sticky.get(identity.name()).copied();
    if !others.is_empty() {
        // Two hosts that start a new identity at the same time cannot know of each other.
        let at_once = before.is_some_and(|(_, since)| now - since < AT_ONCE);
        if calm && !at_once {
            return world.watch.fail(format!("{identity} is up twice"));
        }
        world.watch.sticky.remove(identity.name());
        for id in others.iter().map(String::as_str).chain([id]) {
            if let Some(container) = world.containers.get_mut(id) {
                container.identity = None;
            }
        }
        return;
    }
    let name = identity.name().to_owned();
    world.watch.sticky.insert(name, (address, now));
    match before {
        Some((before, _)) if before != address => {
            world.watch.moved += 1;
            if calm {
                let text = format!("{identity} had {before}, and got {address}");
                world.watch.fail(text);
            }
        }
        Some(_) => world.watch.kept += 1,
        None => {}
    }
}

/// Returns true if nothing excuses that an identity gets another address.
fn is_calm(world: &World) -> bool {
    let plan = &world.plan;
    let no_crash = plan.crash == 0.0 && plan.crash_at.is_none();
    let no_loss = plan.loss == 0.0 && plan.slow == 0.0 && no_crash;
    no_loss && !plan.partitions && !plan.full_disks && plan.deaths + plan.resets == 0
}

/// What was answered must be in the store.
pub(crate) fn durable(world: &mut World, node: usize, id: &str, address: Address) {
    let Machine::Weft(host) = &world.nodes[node].machine else {
        return;
    };
    let mut key = vec![b'a'];
    key.extend(address.get().to_be_bytes());
    let held = host.disk.durable.get(&key).is_some_and(|value| {
        let mut stored = Stored::default();
        let read = stored.insert(&key, value);
        read.is_ok() && stored.addresses().any(|(_, holding)| holding.id == id)
    });
    if !held {
        world
            .watch
            .fail(format!("{address} was given to {id}, but is not saved"));
    }
}

/// A message may not say more of the ring than what is saved.
pub(crate) fn sent(
    world: &mut World,
    node: usize,
    channel: Channel,
    unicast: bool,
    payload: &[u8],
) {
    if channel != Channel::Ring || world.plan.weft + world.plan.weave > 10 {
        return;
    }
    let state = match (unicast, Unicast::decode(payload)) {
        (false, _) => payload,
        (true, Ok(Unicast::RingUpdate(state))) => state,
        _ => return,
    };
    let Ok(received) = decode_state(state, |_| false) else {
        return world.watch.fail("a message cannot be read".to_owned());
    };
    let Machine::Weft(host) = &world.nodes[node].machine else {
        return;
    };
    let Some((_, ring)) = received.state.ring else {
        return;
    };
    for entry in &ring.entries {
        let mut key = vec![b'e'];
        key.extend(entry.token.get().to_be_bytes());
        let version = host.disk.durable.get(&key).and_then(|value| {
            let version = value.get(6..10)?;
            Some(u32::from_be_bytes(version.try_into().ok()?))
        });
        if version.is_none_or(|version| version < entry.version) {
            let name = world.nodes[node].name;
            return world.watch.fail(format!(
                "{name} says {} v{}, but saved is {version:?}",
                entry.token, entry.version
            ));
        }
    }
}

/// Alarms that only misuse or a lost store may raise.
pub(crate) fn alarm(world: &mut World, node: usize, alarm: Alarm) {
    let name = world.nodes[node].name;
    let misuse = !matches!(
        alarm,
        Alarm::LeaseMoved { .. } | Alarm::LeaseLost { .. } | Alarm::Stray { .. }
    );
    let planted = world.plan.planted == Planted::RemovesLiving;
    if misuse && !planted {
        world.watch.fail(format!("{name} raises an alarm: {alarm}"));
    }
    world.watch.alarms.push(alarm);
}

/// What excuses that an identity gets another address.
pub(crate) fn event(world: &mut World, _node: usize, event: &Event) {
    if let Event::LeaseEnded { identity, .. } = event
        && let Some((name, _)) = identity.split_once(" in ")
    {
        world.watch.sticky.remove(name);
    }
}

fn allocator(world: &World, node: usize) -> Option<&Allocator> {
    match &world.nodes[node].machine {
        Machine::Weft(host) => host.allocator.as_ref(),
        Machine::Weave(_) => None,
    }
}

fn live_leases(allocator: &Allocator) -> Vec<(LeaseKey, Lease)> {
    let leases = allocator.lease_table().iter();
    let live = leases.filter(|(_, lease)| lease.is_live());
    live.map(|(key, lease)| ((**key).clone(), lease.clone()))
        .collect()
}

/// After the faults have stopped and everything has settled.
pub(crate) fn at_the_end(world: &World) -> Result<(), String> {
    let living: Vec<usize> = (0..world.nodes.len())
        .filter(|node| !world.nodes[*node].dead)
        .collect();
    same_rings(world, &living)?;
    same_leases(world, &living)?;
    for node in &living {
        let name = world.nodes[*node].name;
        match &world.nodes[*node].machine {
            Machine::Weft(host) if !host.requests.is_empty() => {
                return Err(format!("{name} has not answered {:?}", host.requests));
            }
            Machine::Weave(_) | Machine::Weft(_) => {}
        }
    }
    nothing_lost(world, &living)
}

fn same_rings(world: &World, living: &[usize]) -> Result<(), String> {
    let mut first = None;
    for node in living {
        let ring = match &world.nodes[*node].machine {
            Machine::Weft(_) => allocator(world, *node).map(Allocator::ring),
            Machine::Weave(weave) => Some(&weave.ring),
        };
        let name = world.nodes[*node].name;
        let ring = ring.ok_or_else(|| format!("{name} is not up"))?;
        let first = first.get_or_insert((name, ring));
        // The number of free addresses is hearsay, but who owns what is not.
        let owners = |ring: &ipam::ring::Ring| -> Vec<_> {
            let entries = ring.entries.iter();
            entries.map(|e| (e.token, e.peer, e.version)).collect()
        };
        let (a, b) = (owners(first.1), owners(ring));
        if a != b {
            let one: Vec<_> = a.iter().filter(|entry| !b.contains(entry)).collect();
            let two: Vec<_> = b.iter().filter(|entry| !a.contains(entry)).collect();
            let whose = first.0;
            return Err(format!(
                "rings of {whose} and {name} differ: {one:?} {two:?}"
            ));
        }
    }
    Ok(())
}

fn same_leases(world: &World, living: &[usize]) -> Result<(), String> {
    let mut first = None;
    for node in living {
        let Some(allocator) = allocator(world, *node) else {
            continue;
        };
        let name = world.nodes[*node].name;
        let leases = live_leases(allocator);
        let (whose, first) = first.get_or_insert((name, leases.clone()));
        if *first != leases {
            let a: Vec<_> = first.iter().filter(|l| !leases.contains(l)).collect();
            let b: Vec<_> = leases.iter().filter(|l| !first.contains(l)).collect();
            return Err(format!("leases of {whose} and {name} differ: {a:?} {b:?}"));
        }
    }
    Ok(())
}

fn nothing_lost(world: &World, living: &[usize]) -> Result<(), String> {
    let universe: Cidr = world.plan.universe;
    let any_ring = living.iter().any(|node| match &world.nodes[*node].machine {
        Machine::Weft(_) => allocator(world, *node).is_some_and(|a| !a.ring().is_empty()),
        Machine::Weave(weave) => !weave.ring.is_empty(),
    });
    if !any_ring {
        return Ok(());
    }
    let mut owned = RangeSet::new();
    for node in living {
        for range in world.usable(*node).iter() {
            owned.insert(*range);
        }
    }
    let all: RangeSet = [universe.range()].into_iter().collect();
    let missing = all.minus(&owned);
    if !missing.is_empty() {
        let takeovers: Vec<_> = living
            .iter()
            .filter_map(|node| Some((world.nodes[*node].name, allocator(world, *node)?)))
            .map(|(name, allocator)| (name, allocator.takeover_status()))
            .collect();
        return Err(format!("nobody can use {missing:?}: {takeovers:?}"));
    }
    for node in living {
        let name = world.nodes[*node].name;
        let Some(allocator) = allocator(world, *node) else {
            continue;
        };
        for range in allocator.space().our_ranges().iter() {
            for number in range.start.get()..range.end.get() {
                let address = Address::new(number);
                let leased = allocator.lease_table().at(address).next().is_some();
                let used =
                    world.watch.in_use.get(&address).is_some_and(|id| {
                        world.containers.get(id).is_some_and(|c| c.host == *node)
                    });
                if !leased && !used {
                    return Err(format!("{name} keeps {address} for nobody"));
                }
            }
        }
    }
    for (address, id) in &world.watch.in_use {
        let Some(host) = world.containers.get(id).map(|c| c.host) else {
            continue;
        };
        let owner = allocator(world, host).map(|a| a.ring().owner(*address));
        if owner.is_some_and(|owner| owner != Some(world.nodes[host].name)) {
            return Err(format!("{id} uses {address}, which its host does not own"));
        }
    }
    Ok(())
}
