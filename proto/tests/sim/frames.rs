//! Frames that travel by the routes which the nodes published, as their data threads would send
//! them.

use std::collections::{BTreeMap, VecDeque};

use proto::types::PeerName;

use super::world::World;

/// Returns how often each host gets a broadcast of `source`; `None` if it never ends.
pub(crate) fn flood(world: &World, source: usize) -> Option<BTreeMap<usize, u32>> {
    let by_name: BTreeMap<PeerName, usize> = by_name(world);
    let origin = world.hosts[source].name;
    let mut got = BTreeMap::new();
    let mut queue = VecDeque::from([source]);
    let limit = world.hosts.len() * world.hosts.len() + 100;
    for _ in 0..limit {
        let Some(at) = queue.pop_front() else {
            got.remove(&source);
            return Some(got);
        };
        *got.entry(at).or_default() += 1;
        let host = &world.hosts[at];
        let Some(routes) = &host.routes else { continue };
        for next in routes.broadcast(origin) {
            if host.order.contains_key(next)
                && let Some(next) = by_name.get(next)
                && world.is_up(*next)
                && !world.is_blocked(at, *next)
            {
                queue.push_back(*next);
            }
        }
    }
    None
}

/// Returns the hosts that a frame from one host to another passes, if it arrives.
pub(crate) fn path(world: &World, from: usize, to: usize) -> Option<Vec<usize>> {
    let by_name = by_name(world);
    let dest = world.hosts[to].name;
    let mut at = from;
    let mut passed = vec![from];
    while at != to {
        let host = &world.hosts[at];
        let next = host.routes.as_ref()?.unicast(dest)?;
        host.order.get(&next)?;
        at = *by_name.get(&next)?;
        if passed.contains(&at) {
            return None;
        }
        passed.push(at);
    }
    Some(passed)
}

fn by_name(world: &World) -> BTreeMap<PeerName, usize> {
    let hosts = world.hosts.iter().enumerate();
    hosts.map(|(index, host)| (host.name, index)).collect()
}
