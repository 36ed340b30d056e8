//! What must be true when all is quiet.

use std::time::Duration;

use proto::node::Content;

use super::frames;
use super::world::{CHANNELS, World};

/// Why the hosts that are up are not of one mind yet; `None` if they are.
pub(crate) fn disagreement(world: &World) -> Option<String> {
    let up = world.up();
    for &host in &up {
        let node = world.node(host);
        if node.topology().peers().len() != up.len() {
            return Some(format!(
                "{host} knows {} peers",
                node.topology().peers().len()
            ));
        }
        for connection in node.connections() {
            if !connection.established {
                return Some(format!("{host} to {} is not established", connection.peer));
            }
        }
        for &other in &up {
            let name = world.hosts[other].name;
            let here = node.topology().peer(name);
            if here != world.node(other).topology().peer(name) {
                return Some(format!("{host} has an old entry of {other}: {here:?}"));
            }
            let routes = world.hosts[host].routes.as_ref()?;
            if host != other && routes.unicast(name).is_none() {
                return Some(format!("{host} has no route to {other}"));
            }
        }
    }
    None
}

/// Waits until the hosts agree and are all `connected` that will be. Returns how long it took.
pub(crate) fn converge(
    world: &mut World,
    within: Duration,
    connected: impl Fn(&World) -> bool,
) -> Duration {
    let since = world.now;
    let agreed = |world: &World| connected(world) && disagreement(world).is_none();
    loop {
        let found = world.run_until(since + within, agreed);
        let took = world.now.since(since);
        assert!(
            found,
            "no agreement {took:?} after the last fault: {:?}",
            disagreement(world).unwrap_or("a connection is missing".to_owned())
        );
        // The last routes are still being calculated.
        world.run(Duration::from_secs(2));
        if agreed(world) {
            return took;
        }
    }
}

/// While hosts see the mesh differently, a broadcast may go round in circles: the protocol has
/// nothing against it but that they soon agree. So no circle may last.
pub(crate) fn no_lasting_loop(world: &mut World) {
    let mut circles: Vec<usize> = world.up();
    for _ in 0..LOOP_SAMPLES_MAX {
        circles.retain(|source| frames::flood(world, *source).is_none());
        if circles.is_empty() {
            return;
        }
        world.run(Duration::from_millis(100));
    }
    panic!("broadcasts of {circles:?} have gone round in circles for too long");
}

/// How often in a row, at 100 ms, a broadcast may be seen to go in circles.
const LOOP_SAMPLES_MAX: u32 = 4;

/// Frames reach everybody exactly once, unicasts arrive, channels agree.
pub(crate) fn quiet(world: &mut World) {
    let up = world.up();
    for &source in &up {
        let got = frames::flood(world, source).expect("a broadcast goes round in circles");
        for &host in up.iter().filter(|host| **host != source) {
            assert_eq!(
                got.get(&host),
                Some(&1),
                "broadcast of {source} at {host}: {got:?}"
            );
        }
        for &host in &up {
            assert!(
                frames::path(world, source, host).is_some(),
                "frame {source} to {host}"
            );
        }
    }
    gossip(world, &up);
    for &host in &up {
        for connection in world.node(host).connections() {
            assert_eq!(connection.bytes_waiting, 0, "{host} has a queue");
        }
        assert_eq!(world.node(host).counters().gossip_dropped, 0);
    }
}

fn gossip(world: &mut World, up: &[usize]) {
    for &host in up {
        world.hosts[host].unicasts.clear();
    }
    for &from in up {
        for &to in up.iter().filter(|to| **to != from) {
            let dest = world.hosts[to].name;
            let sent = world.with(from, |node, now| {
                node.send_unicast(now, CHANNELS[0], dest, &from.to_be_bytes())
            });
            assert_eq!(sent, Some(true));
        }
        let name = world.hosts[from].name;
        let channels = world.hosts[from].config.channels.len();
        for (index, channel) in CHANNELS.iter().enumerate().take(channels) {
            let payload = world.hosts[from].stores[index].bump(name);
            world.with(from, |node, now| {
                node.broadcast(now, channel, Content::Payload(payload));
            });
        }
    }
    world.run(Duration::from_secs(5));
    for &host in up {
        let mut from: Vec<_> = world.hosts[host]
            .unicasts
            .iter()
            .map(|(name, _)| *name)
            .collect();
        from.sort();
        let mut all: Vec<_> = up
            .iter()
            .filter(|other| **other != host)
            .map(|other| world.hosts[*other].name)
            .collect();
        all.sort();
        assert_eq!(from, all, "unicasts to {host}");
        for index in 0..world.hosts[host].config.channels.len() {
            assert_eq!(
                world.hosts[host].stores[index], world.hosts[up[0]].stores[index],
                "channel {index} at {host}"
            );
        }
    }
}
