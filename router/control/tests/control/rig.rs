//! Routers' control loops in one process, without any of the kernel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use boundary::testing::{ManualClock, Memory, Pipes, Recorded, Recorder, SeededRandom, Wires};
use control::addresses::{Addresses, Saved};
use control::consumers::{Consumers, Delivery};
use control::control::{Control, Input, Parts};
use control::links::Links;
use control::names::Naming;
use control::request::{Reply, Request};
use control::surroundings::Surroundings;
use ipam::allocator::{Allocator, Clock as BothClocks, Config, Init, Origin};
use ipam::persist::Stored;
use proto::names::{Index, Names, NamesConfig};
use proto::node::{Node, NodeConfig};
use proto::types::{PeerName, PeerUid, Time};
use tokio::sync::{mpsc, oneshot};

/// A topic whose consumer is the test.
pub(crate) const TOPIC: &str = "test";

/// What the routers of a test have in common.
pub(crate) struct Mesh {
    pub(crate) wires: Wires,
    pub(crate) clock: ManualClock,
    pub(crate) hosts: Vec<Host>,
}

/// A router.
pub(crate) struct Host {
    pub(crate) name: PeerName,
    pub(crate) address: SocketAddr,
    pub(crate) control: Control,
    pub(crate) memory: Memory,
    pub(crate) forwarding: Recorded,
    pub(crate) random: SeededRandom,
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
    pipes: Pipes,
    saved: mpsc::UnboundedReceiver<Saved>,
}

/// Which services a router has.
#[derive(Clone, Copy)]
pub(crate) struct Services {
    pub(crate) addresses: bool,
    pub(crate) names: bool,
}

impl Services {
    pub(crate) const ALL: Services = Services {
        addresses: true,
        names: true,
    };
    pub(crate) const NONE: Services = Services {
        addresses: false,
        names: false,
    };
}

impl Mesh {
    /// This many routers, not connected.
    pub(crate) fn new(count: u8, services: Services) -> Mesh {
        let (wires, clock) = (Wires::default(), ManualClock::default());
        let names: Vec<PeerName> = (1..=count).map(name).collect();
        let hosts = (1..=count)
            .map(|number| Host::new(number, &names, services, &wires, &clock))
            .collect();
        Mesh {
            wires,
            clock,
            hosts,
        }
    }

    /// Routers that all know each other.
    pub(crate) fn connected(count: u8, services: Services) -> Mesh {
        let mut mesh = Mesh::new(count, services);
        let first = mesh.hosts[0].address.to_string();
        for host in 1..mesh.hosts.len() {
            let peers = vec![first.clone()];
            mesh.hosts[host].tell(Request::ConnectInBackground(peers));
        }
        mesh.run(20);
        for host in &mut mesh.hosts {
            assert_eq!(host.view().mesh.peers.len(), usize::from(count));
        }
        mesh
    }

    /// Lets this many seconds pass, and everything happen that happens in them.
    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.settle();
            self.clock.advance(Duration::from_millis(100));
            for host in &mut self.hosts {
                host.control.turn(Input::Time);
            }
        }
        self.settle();
    }

    /// Hands on everything that waits, without letting time pass.
    pub(crate) fn settle(&mut self) {
        while self.hosts.iter_mut().any(|host| host.step()) {}
    }
}

impl Host {
    fn new(
        number: u8,
        names: &[PeerName],
        services: Services,
        wires: &Wires,
        clock: &ManualClock,
    ) -> Host {
        let us = name(number);
        let address = SocketAddr::from(([192, 0, 2, number], 6783));
        let mut consumers = Consumers::new();
        if services.addresses {
            consumers = consumers.with_allocator();
        }
        if services.names {
            consumers = consumers.with_names();
        }
        let deliveries = consumers.outside(TOPIC);
        let seed = u64::from(number);
        let uid = PeerUid(100 + seed);
        let node = NodeConfig {
            channels: consumers.topics(),
            ..NodeConfig::new(us, &format!("host{number}"), uid, seed)
        };
        let node = Node::new(node, Time::ZERO);
        let (sender, saved) = mpsc::unbounded_channel();
        let addresses = services
            .addresses
            .then(|| Addresses::new(allocator(us, names), sender));
        let naming = services.names.then(|| {
            let domain = "weave.local.".parse().unwrap();
            let names = Names::new(NamesConfig { us, domain }, Time::ZERO);
            Naming::new(names, Arc::new(ArcSwap::from_pointee(Index::default())))
        });
        let (pipes, memory, recorder) = (wires.of(address), Memory::default(), Recorder::default());
        let forwarding = recorder.recorded();
        let random = SeededRandom::new(seed);
        let links = Links::new(us, Arc::clone(node.routes()));
        let mut control = Control::new(Parts {
            node,
            consumers,
            addresses,
            naming,
            links,
            surroundings: Surroundings {
                forwarding: Box::new(recorder),
                connections: Box::new(pipes.clone()),
                records: Arc::new(memory.clone()),
                clock: Box::new(clock.clone()),
                random: Box::new(random.clone()),
            },
            device: "tap".to_owned(),
        });
        control.finish_turn();
        Host {
            name: us,
            address,
            control,
            memory,
            forwarding,
            random,
            deliveries,
            pipes,
            saved,
        }
    }

    /// Handles the next thing that waits. Returns whether there was one.
    pub(crate) fn step(&mut self) -> bool {
        let input = if let Some(event) = self.pipes.poll() {
            Input::Connection(event)
        } else if let Ok(saved) = self.saved.try_recv() {
            Input::Saved(saved)
        } else {
            return false;
        };
        self.control.turn(input);
        true
    }

    /// Handles everything that waits at this router.
    pub(crate) fn settle(&mut self) {
        while self.step() {}
    }

    /// Makes a request whose answer nobody needs.
    pub(crate) fn tell(&mut self, request: Request) {
        self.control.turn(Input::Request(request));
    }

    /// Makes a request.
    pub(crate) fn ask<T>(
        &mut self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = Reply::new();
        self.tell(request(reply));
        answer
    }

    /// Makes a request that is answered at once, or once what it caused here is done.
    pub(crate) fn answer<T>(&mut self, request: impl FnOnce(Reply<T>) -> Request) -> T {
        let mut answer = self.ask(request);
        self.settle();
        answer.try_recv().expect("it is answered")
    }

    pub(crate) fn view(&mut self) -> Arc<control::view::View> {
        self.answer(Request::View)
    }
}

pub(crate) fn name(number: u8) -> PeerName {
    format!("00:00:00:00:00:{number:02x}").parse().unwrap()
}

fn allocator(us: PeerName, names: &[PeerName]) -> Allocator {
    let config = Config {
        name: us,
        nickname: "host".to_owned(),
        universe: "10.32.0.0/16".parse().unwrap(),
        universe_defaulted: false,
        default_subnet: None,
        init: Init::Seed(names.to_vec()),
        uid: us.as_u64(),
        lease_retention: 86_400,
        await_found: false,
        rng_seed: us.as_u64(),
    };
    let clock = BothClocks {
        now: Time::ZERO,
        wall: 1_700_000_000,
    };
    Allocator::new(clock, config, Stored::default(), Origin::Store).unwrap()
}
