//! A mesh and its misfortunes, all drawn from one seed.

use std::net::SocketAddrV4;
use std::time::Duration;

use proto::overlay::{Health, Overlay};

use super::check;
use super::world::{Network, World};

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    seed: u64,
    hosts: usize,
    /// Who dials whom.
    pub(crate) edges: Vec<(usize, usize)>,
    encrypted: bool,
    trusted: bool,
    discovery: bool,
    old_protocol: Vec<bool>,
    /// Who offers the native overlay.
    native: Vec<bool>,
    /// Who does with others what only some understand.
    modern: Vec<bool>,
    nat: Vec<bool>,
    network: Network,
    faults: usize,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x005e_ed0f_a31a);
        let hosts = rng.usize(2..=12);
        let nat: Vec<bool> = (0..hosts)
            .map(|host| host > 0 && rng.u32(..8) == 0)
            .collect();
        let mut edges = Vec::new();
        let reachable: Vec<usize> = (0..hosts).filter(|host| !nat[*host]).collect();
        for host in 1..hosts {
            let earlier: Vec<usize> = reachable.iter().copied().filter(|h| *h < host).collect();
            edges.extend(rng.choice(&earlier).map(|to| (host, *to)));
        }
        for _ in 0..rng.usize(..=hosts) {
            let (from, to) = (rng.usize(..hosts), reachable[rng.usize(..reachable.len())]);
            if from != to && !edges.contains(&(from, to)) {
                edges.push((from, to));
            }
        }
        let (path_mtu, path_mtu_told) = [
            (1500, true),
            (1500, true),
            (1400, true),
            (1300, false),
            (9000, true),
        ][rng.usize(..5)];
        let latency = rng.u64(100..20_000);
        Plan {
            seed,
            hosts,
            edges,
            encrypted: rng.u32(..3) == 0,
            trusted: rng.u32(..6) == 0,
            discovery: rng.bool(),
            old_protocol: (0..hosts).map(|_| rng.u32(..6) == 0).collect(),
            native: vec![false; hosts],
            modern: (0..hosts as u64)
                .map(|host| !(seed + host).is_multiple_of(5))
                .collect(),
            nat,
            network: Network {
                latency_us: latency / 2..latency * 2,
                loss: if rng.bool() { rng.u32(..200) } else { 0 },
                doubling: rng.u32(..100),
                path_mtu,
                path_mtu_told,
            },
            faults: rng.usize(..25),
        }
    }

    /// The same with two hosts of three that offer the native overlay.
    pub(crate) fn draw_native(seed: u64) -> Plan {
        let plan = Plan::draw(seed);
        let native = |host: usize| !(seed + host as u64).is_multiple_of(3);
        Plan {
            native: (0..plan.hosts).map(native).collect(),
            ..plan
        }
    }

    /// Returns the mesh, all hosts down.
    pub(crate) fn build(&self) -> World {
        let mut world = World::new(self.seed);
        world.network = self.network.clone();
        for host in 0..self.hosts {
            world.add_host(|config| {
                config.password = self.encrypted.then(|| b"secret".as_slice().into());
                config.discovery = self.discovery;
                config.max_version = if self.old_protocol[host] { 1 } else { 2 };
                config.abilities = self.modern[host];
                if !self.native[host] {
                    config.overlays = vec![Overlay::Sleeve];
                }
                if self.trusted {
                    config.trusted_subnets.push("10.0.0.0/8".parse().unwrap());
                }
            });
            if self.nat[host] {
                let outside = [192, 0, 2, u8::try_from(host).unwrap() + 1];
                world.hosts[host].nat = Some(SocketAddrV4::new(outside.into(), 30_000));
            }
        }
        for (from, to) in &self.edges {
            let target = world.target(*to);
            world.hosts[*from].targets.push(target);
        }
        world
    }

    /// Lets the seed happen, and checks that all ends well.
    pub(crate) fn run(&self, trace: bool) -> World {
        let mut world = self.build();
        world.trace = trace.then(Vec::new);
        self.happen(&mut world);
        world
    }

    /// The same, with the trace printed.
    pub(crate) fn run_printing(&self) {
        let mut world = self.build();
        world.trace = Some(Vec::new());
        world.printing = true;
        self.happen(&mut world);
    }

    fn happen(&self, world: &mut World) {
        world.note(|| format!("{self:?}"));
        for host in 0..self.hosts {
            world.start(host);
            let pause = world.rng.u64(..1_000_000);
            world.run(Duration::from_micros(pause));
        }
        for _ in 0..self.faults {
            let pause = world.rng.u64(..8_000_000);
            world.run(Duration::from_micros(pause));
            self.fault(world);
            if !self.is_native() {
                check::no_lasting_loop(world);
            }
        }
        self.heal(world);
        let connected = |world: &World| self.all_connected(world) && self.all_native(world);
        check::converge(world, Duration::from_secs(1200), connected);
        if self.is_native() {
            // A connection that was made at the last moment may still change routes.
            world.run(Duration::from_secs(60));
            check::converge(world, Duration::from_secs(1200), connected);
        }
        check::quiet(world);
    }

    fn fault(&self, world: &mut World) {
        let host = world.rng.usize(..self.hosts);
        let other = world.rng.usize(..self.hosts);
        let kind = world.rng.u32(..13);
        world.note(|| format!("fault {kind} {host} {other}"));
        match kind {
            0 | 1 => {
                let silent = kind == 1;
                world.stop(host, silent);
                let pause = world.rng.u64(..20_000_000);
                world.run(Duration::from_micros(pause));
                world.start(host);
            }
            2 => world.stop(host, false),
            3 | 4 => world.break_connection(kind == 4),
            5 | 6 => world.set_blocked(host, other, host != other),
            7 => {
                // A cut through the whole mesh.
                let side: Vec<bool> = (0..self.hosts).map(|_| world.rng.bool()).collect();
                for a in 0..self.hosts {
                    for b in 0..a {
                        world.set_blocked(a, b, side[a] != side[b]);
                    }
                }
            }
            8 => world.blocked.clear(),
            9 => {
                let pause = world.rng.u64(..90_000_000);
                world.run(Duration::from_micros(pause));
            }
            11 => (0..100).for_each(|_| world.pester(host)),
            10 => {
                if let Some(nat) = &mut world.hosts[host].nat {
                    *nat = SocketAddrV4::new(*nat.ip(), nat.port() + 1);
                }
            }
            _ => {
                let name = world.hosts[host].name;
                let bump = world.hosts[host].stores[0].bump(name);
                world.with(host, |node, now| {
                    let content = proto::node::Content::Payload(bump);
                    node.broadcast(now, super::world::CHANNELS[0], content);
                });
            }
        }
    }

    fn heal(&self, world: &mut World) {
        world.blocked.clear();
        for host in 0..self.hosts {
            if !world.is_up(host) {
                world.start(host);
            }
        }
    }

    /// Returns true if everybody who can be a neighbour is one, so that nothing more will change.
    fn all_connected(&self, world: &World) -> bool {
        let shows = |a: usize, b: usize| {
            let name = world.hosts[b].name;
            world
                .node(a)
                .connections()
                .any(|connection| connection.peer.name == name)
        };
        // One end may show a connection of which it has not heard yet that the other closed it.
        let connected = |a: usize, b: usize| shows(a, b) && shows(b, a);
        if self.discovery {
            (0..self.hosts).all(|a| (0..a).all(|b| self.nat[a] && self.nat[b] || connected(a, b)))
        } else {
            self.edges.iter().all(|(a, b)| connected(*a, *b))
        }
    }

    fn is_native(&self) -> bool {
        self.native.contains(&true)
    }

    /// Returns true if all connections between hosts that can are native, and work.
    fn all_native(&self, world: &World) -> bool {
        (0..self.hosts).filter(|a| self.native[*a]).all(|a| {
            world.node(a).connections().all(|connection| {
                let active = connection.active.as_ref();
                let is_native = active.is_some_and(|view| {
                    view.overlay == Overlay::Weft && view.health == Health::Established
                });
                is_native || !connection.is_weft()
            })
        })
    }
}
