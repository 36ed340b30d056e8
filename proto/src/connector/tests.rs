use std::time::Duration;

use super::target::{INTERVAL_MAX, INTERVAL_MIN};
use super::*;
use crate::topology::{Address, Connection, Peer, encode_update};
use crate::types::PeerUid;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn name(value: u64) -> PeerName {
    PeerName::from_u64(value).unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    let (host, port) = split_target(text).unwrap();
    Target {
        text: text.to_owned(),
        ip: host.parse().unwrap(),
        port,
    }
}

/// Connections that a peer tells of: the remote, its address, whether the peer dialled.
type Told<'t> = [(u64, &'t str, bool)];

/// A connector with the numbers that its driver would hand out.
struct Rig {
    connector: Connector,
    now: Time,
    conns: u64,
}

impl Rig {
    fn new(config: impl FnOnce(&mut ConnectorConfig)) -> Rig {
        Rig::seeded(1, config)
    }

    fn seeded(seed: u64, config: impl FnOnce(&mut ConnectorConfig)) -> Rig {
        let mut settings = ConnectorConfig {
            port: 6783,
            discovery: true,
            connection_limit: 0,
        };
        config(&mut settings);
        Rig {
            connector: Connector::new(settings, fastrand::Rng::with_seed(seed)),
            now: at(100),
            conns: 0,
        }
    }

    fn connect(&mut self, texts: &[&str], replace: bool) {
        let targets: Vec<Target> = texts.iter().map(|text| target(text)).collect();
        self.connector.connect(self.now, targets, replace).unwrap();
    }

    /// Returns the addresses that are dialled, in order.
    fn dials(&mut self) -> Vec<String> {
        let mut dials: Vec<SocketAddr> = self.drain().iter().map(|dial| dial.to).collect();
        dials.sort();
        dials.iter().map(SocketAddr::to_string).collect()
    }

    fn drain(&mut self) -> Vec<Dial> {
        std::iter::from_fn(|| self.connector.poll_output()).collect()
    }

    fn added(&mut self, address: &str, peer: u64, outbound: bool) -> ConnId {
        self.conns += 1;
        let link = Link {
            peer: name(peer),
            address: addr(address),
            outbound,
        };
        self.connector
            .handle_added(self.now, ConnId(self.conns), link);
        ConnId(self.conns)
    }

    /// A dialled connection ends; one that was never added has no number of its own.
    fn ended(&mut self, conn: Option<ConnId>, address: &str, peer: Option<u64>) {
        self.end(conn, Some(address), peer, false);
    }

    fn end(&mut self, conn: Option<ConnId>, address: Option<&str>, peer: Option<u64>, never: bool) {
        let ended = Ended {
            dialled: address.map(addr),
            peer: peer.map(name),
            error: "it broke",
            never_again: never,
        };
        self.connector
            .handle_ended(self.now, conn.unwrap_or(ConnId(0)), ended);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connector.handle_timeout(self.now);
    }

    /// Lets time pass up to the next thing to do. Returns how long that was.
    fn wait(&mut self) -> Duration {
        let next = self
            .connector
            .poll_timeout()
            .expect("something to wait for");
        let time = next.since(self.now);
        self.pass(time);
        time
    }

    fn topology(&mut self, peers: &[(u64, &Told<'_>)]) {
        let mut topology = Topology::new(
            name(50),
            "us",
            PeerUid(1),
            None,
            fastrand::Rng::with_seed(1),
        );
        let peers: Vec<Peer> = peers
            .iter()
            .map(|(value, connections)| Peer {
                name: name(*value),
                nickname: Box::default(),
                uid: PeerUid(1),
                version: 1,
                short_id: None,
                connections: connections
                    .iter()
                    .map(|(remote, address, outbound)| Connection {
                        remote: name(*remote),
                        address: Address::from_text(address.as_bytes()),
                        outbound: *outbound,
                        established: true,
                    })
                    .collect(),
            })
            .collect();
        topology.merge(&encode_update(&peers)).unwrap();
        self.connector.handle_topology(self.now, &topology);
    }

    fn states(&self) -> Vec<(String, TargetState)> {
        let targets = self.connector.targets();
        targets.map(|t| (t.address.to_string(), t.state)).collect()
    }

    fn state(&self, address: &str) -> TargetView<'_> {
        self.connector
            .targets()
            .find(|t| t.address == addr(address))
            .unwrap()
    }
}

#[test]
fn texts_are_split_into_host_and_port() {
    for (text, host, port) in [
        ("host", "host", None),
        ("host:6783", "host", Some(6783)),
        ("host:0", "host", None),
        ("host:", "host", None),
        ("10.0.0.1:1", "10.0.0.1", Some(1)),
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("[::1]:80", "::1", Some(80)),
    ] {
        assert_eq!(split_target(text), Ok((host, port)), "{text}");
    }
    for text in [
        "",
        ":6783",
        "host:65536",
        "host:x",
        "host:-1",
        "[::1",
        "[::1]x",
        "[]:1",
        "a b",
    ] {
        assert_eq!(
            split_target(text),
            Err(InvalidTarget(text.to_owned())),
            "{text}"
        );
    }
    let error = InvalidTarget(":1".to_owned()).to_string();
    assert_eq!(error, "invalid peer name \":1\", should be host[:port]");
}

#[test]
fn a_direct_target_is_dialled_at_once() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1", "10.0.0.2:7000"], false);
    let expected = |to, accept_new| Dial {
        to: addr(to),
        accept_new,
    };
    let mut dials = rig.drain();
    dials.sort_by_key(|dial| dial.to);
    assert_eq!(
        dials,
        [
            expected("10.0.0.1:6783", true),
            expected("10.0.0.2:7000", true)
        ]
    );
    assert_eq!(rig.state("10.0.0.1:6783").state, TargetState::Connecting);
    assert_eq!(rig.connector.poll_timeout(), None);
    let conn = rig.added("10.0.0.1:6783", 1, true);
    assert_eq!(rig.state("10.0.0.1:6783").state, TargetState::Connected);
    assert_eq!(rig.dials(), [""; 0]);
    rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
    let view = rig.state("10.0.0.1:6783");
    assert_eq!(
        (view.state, view.error),
        (TargetState::Failed, Some("it broke"))
    );
    assert_eq!(view.next_try, rig.connector.poll_timeout());
    rig.wait();
    assert_eq!(rig.state("10.0.0.1:6783").state, TargetState::Retrying);
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
}

#[test]
fn delays_grow_and_are_spread() {
    let mut all = Vec::new();
    for seed in 0..200 {
        let mut rig = Rig::seeded(seed, |_| {});
        rig.connect(&["10.0.0.1"], false);
        let mut interval = INTERVAL_MIN;
        let mut delays = Vec::new();
        for _ in 0..20 {
            assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
            rig.pass(SECOND);
            rig.ended(None, "10.0.0.1:6783", None);
            let delay = rig.wait();
            assert!(
                delay >= interval / 2 && delay < interval * 3 / 2,
                "{delay:?}"
            );
            delays.push(delay.as_secs_f64() / interval.as_secs_f64());
            interval = (interval * 3 / 2).min(INTERVAL_MAX);
        }
        assert_eq!(interval, INTERVAL_MAX);
        all.extend(delays);
    }
    // 4000 draws from 0.5 to 1.5: the mean is 1 with a deviation of 0.0046.
    let mean: f64 = all.iter().sum::<f64>() / all.len() as f64;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    assert!(all.iter().any(|d| *d < 0.51) && all.iter().any(|d| *d > 1.49));
}

#[test]
fn a_connection_that_lived_is_made_again_soon() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], false);
    for _ in 0..6 {
        rig.ended(None, "10.0.0.1:6783", None);
        rig.wait();
    }
    let _ = rig.dials();
    let conn = rig.added("10.0.0.1:6783", 1, true);
    rig.pass(2 * SECOND);
    rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
    for _ in 0..4 {
        assert!(rig.wait() < Duration::from_millis(500));
        assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
        rig.ended(None, "10.0.0.1:6783", None);
    }
    assert!(
        (INTERVAL_MIN / 2..INTERVAL_MIN * 3 / 2).contains(&rig.wait()),
        "the interval starts from the beginning"
    );
    let _ = rig.dials();
    // An attempt that hangs for long is no success.
    rig.pass(61 * SECOND);
    rig.ended(None, "10.0.0.1:6783", None);
    assert!(rig.wait() > SECOND);
    let _ = rig.dials();
    // Nor is a connection of less than a second.
    let conn = rig.added("10.0.0.1:6783", 1, true);
    rig.pass(SECOND * 9 / 10);
    rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
    assert!(rig.wait() > SECOND);
}

#[test]
fn ourselves_and_our_namesakes_are_dialled_once() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], false);
    let _ = rig.dials();
    rig.end(None, Some("10.0.0.1:6783"), None, true);
    let view = rig.state("10.0.0.1:6783");
    assert_eq!((view.state, view.next_try), (TargetState::Failed, None));
    assert_eq!(rig.connector.poll_timeout(), None);
    rig.pass(86_400 * SECOND);
    rig.topology(&[(1, &[(2, "10.0.0.1:6783", true)])]);
    assert_eq!(rig.dials(), [""; 0]);
    rig.connect(&["10.0.0.9"], false);
    assert_eq!(
        rig.dials(),
        ["10.0.0.9:6783"],
        "only what is named is tried again"
    );
    rig.connect(&["10.0.0.1"], false);
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
}

#[test]
fn an_address_of_ours_that_comes_and_goes_is_not_dialled_each_time() {
    let mut rig = Rig::new(|_| {});
    let mut dials = 0;
    // Somebody tells of a peer that is gone, at the address that we have.
    for _ in 0..300 {
        rig.topology(&[(1, &[(2, "10.0.0.1:6783", true)])]);
        for dial in rig.drain() {
            dials += 1;
            rig.end(None, Some(&dial.to.to_string()), None, true);
        }
        rig.topology(&[]);
        assert_eq!(rig.states(), []);
        rig.pass(SECOND);
    }
    assert_eq!(dials, 1);
    rig.pass(600 * SECOND);
    rig.topology(&[]);
    rig.topology(&[(1, &[(2, "10.0.0.1:6783", true)])]);
    assert_eq!(
        rig.dials(),
        ["10.0.0.1:6783"],
        "the address may have passed to another"
    );
}

#[test]
fn a_target_that_comes_and_goes_keeps_its_delay() {
    let mut rig = Rig::new(|_| {});
    let there: &Told<'_> = &[(2, "10.0.0.1:6783", true)];
    let mut times = Vec::new();
    for step in 0..6000 {
        rig.topology(&[(1, if step % 2 == 0 { there } else { &[] })]);
        for dial in rig.drain() {
            times.push(rig.now);
            rig.ended(None, &dial.to.to_string(), None);
        }
        rig.pass(SECOND / 10);
    }
    assert!((5..15).contains(&times.len()), "in ten minutes: {times:?}");
    // Gone for longer, it is new.
    rig.topology(&[]);
    rig.pass(20 * SECOND);
    rig.topology(&[]);
    rig.topology(&[(1, there)]);
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
}

#[test]
fn short_lived_connections_to_discovered_targets_make_delays_grow() {
    let mut rig = Rig::new(|_| {});
    let there: &Told<'_> = &[(2, "10.0.0.1:6783", true)];
    let mut delays = Vec::new();
    rig.topology(&[(1, there)]);
    for _ in 0..8 {
        assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
        let conn = rig.added("10.0.0.1:6783", 2, true);
        rig.topology(&[(1, there)]);
        rig.pass(SECOND);
        rig.ended(Some(conn), "10.0.0.1:6783", Some(2));
        rig.pass(SECOND / 10);
        rig.topology(&[(1, there)]);
        delays.push(rig.wait());
    }
    assert!(delays[7] > 10 * delays[0], "{delays:?}");
}

#[test]
fn gossip_cannot_make_us_dial_many_addresses_at_once() {
    let mut rig = Rig::new(|_| {});
    let start = rig.now;
    let mut dials = Vec::new();
    for round in 0..50 {
        let texts: Vec<String> = (0..1000)
            .map(|i| format!("10.{round}.{}.{}:6783", i / 250, i % 250))
            .collect();
        let list: Vec<(u64, &str, bool)> = texts
            .iter()
            .enumerate()
            .map(|(i, t)| (1000 + i as u64, t.as_str(), true))
            .collect();
        rig.topology(&[(1, &list)]);
        let end = rig.now + SECOND / 10;
        while rig.now < end {
            // Each one is refused at once.
            while let Some(dial) = rig.connector.poll_output() {
                dials.push(rig.now);
                rig.ended(None, &dial.to.to_string(), None);
            }
            let wake = rig.connector.poll_timeout();
            rig.now = wake.map_or(end, |wake| wake.min(end));
            rig.connector.handle_timeout(rig.now);
        }
    }
    let burst = dials.iter().filter(|time| **time == start).count();
    assert_eq!(burst, DISCOVERED_BURST_MAX as usize);
    let expected = burst + 500 - 1;
    assert!(
        (expected - 2..=expected).contains(&dials.len()),
        "in five seconds: {}",
        dials.len()
    );
    assert!(
        rig.connector.entries.len() < 2600,
        "{}",
        rig.connector.entries.len()
    );
}

#[test]
fn forgetting_and_replacing_leave_connections_alone() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], false);
    let _ = rig.dials();
    let conn = rig.added("10.0.0.1:6783", 1, true);
    rig.ended(None, "10.0.0.2:6783", None);
    rig.connector
        .forget(rig.now, ["10.0.0.1", "10.0.0.2", "unknown"]);
    let states = [
        ("10.0.0.1:6783".to_owned(), TargetState::Connected),
        ("10.0.0.3:6783".to_owned(), TargetState::Connecting),
    ];
    assert_eq!(rig.states(), states[..]);
    rig.connect(&["10.0.0.4"], true);
    let texts: Vec<&str> = rig.connector.direct().map(|t| t.text.as_str()).collect();
    assert_eq!(texts, ["10.0.0.4"]);
    assert_eq!(rig.dials(), ["10.0.0.4:6783"]);
    assert_eq!(rig.states()[..2], states[..]);
    rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
    rig.ended(None, "10.0.0.3:6783", None);
    assert_eq!(
        rig.states(),
        [("10.0.0.4:6783".to_owned(), TargetState::Connecting)]
    );
    rig.pass(86_400 * SECOND);
    assert_eq!(rig.dials(), [""; 0]);
}

#[test]
fn naming_a_target_again_ends_its_delay() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], false);
    let _ = rig.dials();
    rig.connect(&["10.0.0.1"], false);
    assert_eq!(rig.dials(), [""; 0], "one attempt at a time");
    for _ in 0..5 {
        rig.ended(None, "10.0.0.1:6783", None);
        rig.connect(&["10.0.0.1:6783"], false);
        assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
    }
    // Two texts for one address are two targets; the address stays until both are forgotten.
    rig.ended(None, "10.0.0.1:6783", None);
    assert_eq!(rig.connector.direct().len(), 2);
    rig.connector.forget(rig.now, ["10.0.0.1"]);
    assert_eq!(
        rig.states(),
        [("10.0.0.1:6783".to_owned(), TargetState::Failed)]
    );
    rig.connector.forget(rig.now, ["10.0.0.1:6783"]);
    assert_eq!(rig.states(), []);
}

#[test]
fn without_a_port_an_inbound_connection_will_do() {
    let mut rig = Rig::new(|_| {});
    let conn = rig.added("10.0.0.1:40000", 1, false);
    rig.connect(&["10.0.0.1", "10.0.0.1:7000"], false);
    assert_eq!(rig.dials(), ["10.0.0.1:7000"]);
    assert_eq!(rig.state("10.0.0.1:6783").state, TargetState::Suspended);
    rig.end(Some(conn), None, Some(1), false);
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
    // An outbound one to another port of that host will not.
    rig.added("10.0.0.1:7000", 2, true);
    rig.ended(None, "10.0.0.1:6783", None);
    rig.wait();
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
}

#[test]
fn a_target_whose_peer_dialled_us_waits_until_that_connection_ends() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1:6783"], false);
    let _ = rig.dials();
    // Both dial, and the other connection wins.
    let inbound = rig.added("10.0.0.1:40000", 1, false);
    rig.ended(None, "10.0.0.1:6783", Some(1));
    assert_eq!(rig.state("10.0.0.1:6783").state, TargetState::Suspended);
    rig.pass(86_400 * SECOND);
    assert_eq!(
        rig.dials(),
        [""; 0],
        "another attempt would end one of the two again"
    );
    rig.end(Some(inbound), None, Some(1), false);
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
    // The name that was met there is no obstacle when the user insists.
    rig.added("10.0.0.1:40001", 1, false);
    rig.ended(None, "10.0.0.1:6783", Some(1));
    rig.connect(&["10.0.0.1:6783"], false);
    assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
}

#[test]
fn addresses_of_others_are_discovered() {
    let mut rig = Rig::new(|_| {});
    rig.added("10.0.0.1:6783", 1, true);
    rig.topology(&[
        (
            1,
            &[
                (50, "10.0.0.50:6783", true),
                (2, "10.0.0.2:7000", true),
                (3, "10.0.0.3:41234", false),
                (4, "[2001:db8::4]:6783", true),
            ],
        ),
        (
            2,
            &[
                (1, "10.0.0.1:6783", true),
                (3, "10.0.0.3:6783", true),
                (5, "nonsense", true),
            ],
        ),
        (6, &[(2, "10.0.0.1:6783", true)]),
    ]);
    let dials = rig.drain();
    assert!(dials.iter().all(|dial| !dial.accept_new));
    let mut to: Vec<String> = dials.iter().map(|dial| dial.to.to_string()).collect();
    to.sort();
    assert_eq!(to, ["10.0.0.2:7000", "10.0.0.3:6783", "[2001:db8::4]:6783"]);
    // Once connected, other addresses of that peer are of no use.
    rig.ended(None, "10.0.0.3:6783", None);
    rig.added("10.9.9.9:40000", 3, false);
    assert_eq!(rig.states().len(), 2);
    rig.topology(&[(1, &[(3, "10.0.0.3:6783", true)])]);
    rig.ended(None, "10.0.0.2:7000", None);
    rig.ended(None, "[2001:db8::4]:6783", None);
    assert_eq!(rig.states(), []);
}

#[test]
fn what_leads_nowhere_is_not_dialled() {
    let mut rig = Rig::new(|_| {});
    let addresses = [
        "0.0.0.0:6783",
        "255.255.255.255:6783",
        "224.0.0.1:6783",
        "10.0.0.1:0",
        "127.0.0.1:6784",
        "[::1]:6783",
        "[::]:6783",
        "example.com:6783",
        "10.0.0.1",
        "",
    ];
    let list: Vec<(u64, &str, bool)> = addresses
        .iter()
        .enumerate()
        .map(|(i, a)| (100 + i as u64, *a, true))
        .collect();
    rig.topology(&[(1, &list)]);
    assert_eq!(rig.dials(), [""; 0]);
    // Among routers on one host, loopback addresses mean something.
    rig.added("127.0.0.1:6783", 1, true);
    rig.topology(&[(1, &list)]);
    assert_eq!(rig.dials(), ["127.0.0.1:6784", "[::1]:6783"]);
}

#[test]
fn discovery_can_be_turned_off() {
    let mut rig = Rig::new(|config| config.discovery = false);
    rig.topology(&[(1, &[(2, "10.0.0.2:6783", true)])]);
    assert_eq!(rig.dials(), [""; 0]);
    assert_eq!(rig.states(), []);
}

#[test]
fn a_named_target_may_be_new_to_the_mesh_even_if_it_is_discovered_too() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.2"], false);
    rig.topology(&[(1, &[(2, "10.0.0.2:6783", true)])]);
    assert_eq!(rig.drain().len(), 1);
    rig.ended(None, "10.0.0.2:6783", None);
    rig.wait();
    assert!(rig.drain()[0].accept_new);
    rig.ended(None, "10.0.0.2:6783", None);
    rig.connector.forget(rig.now, ["10.0.0.2"]);
    rig.wait();
    assert!(!rig.drain()[0].accept_new);
}

#[test]
fn the_connection_limit_holds_for_dialling() {
    let mut rig = Rig::new(|config| config.connection_limit = 3);
    rig.added("10.9.0.1:40000", 1, false);
    rig.connect(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], false);
    let dials = rig.dials();
    assert_eq!(
        dials.len(),
        2,
        "attempts count, so that they do not overshoot"
    );
    // When one fails there is room for the next.
    rig.ended(None, &dials[0], None);
    assert_eq!(rig.dials().len(), 1);
    let conn = rig.added(&dials[1], 2, true);
    rig.added("10.9.0.2:40000", 3, false);
    rig.wait();
    let view = rig.state(&dials[0]);
    assert_eq!(view.error, Some("connection limit reached (3)"));
    assert_eq!(rig.dials(), [""; 0]);
    rig.ended(Some(conn), &dials[1], Some(2));
    rig.wait();
    assert_eq!(
        rig.drain().len(),
        0,
        "the attempt that goes on has the last place"
    );
}

#[test]
fn discovered_targets_do_not_take_the_places_of_direct_ones() {
    let mut rig = Rig::new(|config| config.connection_limit = 2);
    rig.topology(&[(
        1,
        &[
            (2, "10.0.0.2:6783", true),
            (3, "10.0.0.3:6783", true),
            (4, "10.0.0.4:6783", true),
        ],
    )]);
    assert_eq!(rig.drain().len(), 2);
    rig.connect(&["10.0.0.9"], false);
    assert_eq!(rig.dials(), ["10.0.0.9:6783"]);
}

/// Runs a rig whose dials are answered by `answer` after some time, up to `end`. Returns the times
/// of all dials by address.
fn simulate(
    rig: &mut Rig,
    end: Time,
    answer: impl Fn(SocketAddr) -> Duration,
) -> BTreeMap<SocketAddr, Vec<Time>> {
    let mut pending = BTreeSet::new();
    let mut dials = BTreeMap::<SocketAddr, Vec<Time>>::new();
    while rig.now < end {
        for dial in rig.drain() {
            dials.entry(dial.to).or_default().push(rig.now);
            pending.insert((rig.now + answer(dial.to), dial.to));
        }
        let discovered = pending
            .iter()
            .filter(|(_, to)| to.ip().to_string().starts_with("10.1."));
        assert!(discovered.count() <= DISCOVERED_ATTEMPTS_MAX);
        assert!(pending.len() <= DISCOVERED_ATTEMPTS_MAX + DIRECT_ATTEMPTS_MAX);
        let next = pending.first().map(|(time, _)| *time);
        let wake = rig.connector.poll_timeout();
        rig.now = next.into_iter().chain(wake).min().unwrap_or(end);
        rig.connector.handle_timeout(rig.now);
        while let Some((time, to)) = pending
            .first()
            .copied()
            .filter(|(time, _)| *time <= rig.now)
        {
            pending.remove(&(time, to));
            rig.ended(None, &to.to_string(), None);
        }
    }
    dials
}

#[test]
fn many_dead_addresses_make_no_storm_and_starve_nobody() {
    let mut rig = Rig::new(|_| {});
    let start = rig.now;
    let texts: Vec<String> = (0..1000)
        .map(|i| format!("10.1.{}.{}:6783", i / 250, i % 250))
        .collect();
    let list: Vec<(u64, &str, bool)> = texts
        .iter()
        .enumerate()
        .map(|(i, t)| (1000 + i as u64, t.as_str(), true))
        .collect();
    rig.topology(&[(1, &list)]);
    rig.connect(&["10.2.0.1"], false);
    // Every discovered address swallows what is sent to it; the named one refuses at once.
    let answer = |to: SocketAddr| match to.ip().to_string().starts_with("10.1.") {
        true => Duration::from_secs(10),
        false => Duration::from_millis(1),
    };
    let dials = simulate(&mut rig, start + 3600 * SECOND, answer);
    let named = &dials[&addr("10.2.0.1:6783")];
    assert_eq!(named[0], start);
    for pair in named.windows(2) {
        let delay = pair[1].since(pair[0]);
        assert!(
            delay <= INTERVAL_MAX * 3 / 2 + SECOND,
            "the named one waits for nobody: {delay:?}"
        );
    }
    assert_eq!(dials.len(), 1001, "each one is tried");
    let total: usize = dials.values().map(Vec::len).sum();
    assert!(
        total <= 3600 / 10 * DISCOVERED_ATTEMPTS_MAX + named.len(),
        "{total}"
    );
    let counts = dials.values().map(Vec::len);
    let (least, most) = (counts.clone().min().unwrap(), counts.max().unwrap());
    assert!(least >= 4, "turns are fair: {least} to {most}");
}

#[test]
fn the_number_of_direct_targets_is_limited() {
    let mut rig = Rig::new(|_| {});
    let texts: Vec<String> = (0..DIRECT_MAX)
        .map(|i| format!("10.0.{}.{}", i / 250, i % 250))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    rig.connect(&texts, false);
    assert_eq!(rig.drain().len(), DIRECT_ATTEMPTS_MAX);
    let more = || [target("10.9.9.9")];
    assert_eq!(
        rig.connector.connect(rig.now, more(), false),
        Err(TooManyTargets)
    );
    assert_eq!(rig.connector.direct().len(), DIRECT_MAX);
    rig.connector.connect(rig.now, more(), true).unwrap();
    assert_eq!(rig.connector.direct().len(), 1);
}

#[test]
fn discovered_addresses_are_limited_and_each_peer_gets_one_first() {
    let mut rig = Rig::new(|_| {});
    let texts: Vec<String> = (0..5000)
        .map(|i| format!("10.1.{}.{}:6783", i / 250, i % 250))
        .collect();
    // One peer with many addresses, before many with one.
    let greedy: Vec<(u64, &str, bool)> =
        texts[..100].iter().map(|t| (2, t.as_str(), true)).collect();
    let modest: Vec<(u64, &str, bool)> = texts[100..]
        .iter()
        .enumerate()
        .map(|(i, t)| (100 + i as u64, t.as_str(), true))
        .collect();
    let (a, b) = modest.split_at(2000);
    let mut lists: Vec<(u64, &Told<'_>)> = vec![(10_001, a), (10_002, b)];
    let single: Vec<[(u64, &str, bool); 1]> = greedy.iter().map(|c| [*c]).collect();
    lists.extend(
        single
            .iter()
            .enumerate()
            .map(|(i, c)| (20_000 + i as u64, &c[..])),
    );
    rig.topology(&lists);
    let targets: BTreeSet<String> = rig
        .states()
        .into_iter()
        .map(|(address, _)| address)
        .collect();
    assert_eq!(targets.len(), discovery::DISCOVERED_MAX);
    let of_greedy = texts[..100]
        .iter()
        .filter(|text| targets.contains(*text))
        .count();
    assert_eq!(of_greedy, 1);
    rig.topology(&lists[2..]);
    let waiting = rig
        .states()
        .into_iter()
        .filter(|(_, state)| *state == TargetState::Waiting);
    let kept = waiting.count()
        + rig
            .drain()
            .iter()
            .filter(|d| texts[..100].contains(&d.to.to_string()))
            .count();
    assert_eq!(kept, 8);
}

#[test]
fn long_errors_are_cut() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], false);
    let ended = Ended {
        dialled: Some(addr("10.0.0.1:6783")),
        peer: None,
        error: &"é".repeat(1000),
        never_again: false,
    };
    rig.connector.handle_ended(rig.now, ConnId(9), ended);
    assert_eq!(rig.state("10.0.0.1:6783").error.map(str::len), Some(256));
}

#[test]
fn spurious_calls_change_nothing() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], false);
    let _ = rig.dials();
    rig.ended(None, "10.0.0.1:6783", None);
    let (states, wake) = (rig.states(), rig.connector.poll_timeout());
    rig.connector.handle_timeout(rig.now);
    rig.ended(None, "10.0.0.1:6783", None);
    rig.ended(None, "10.7.7.7:6783", None);
    rig.end(Some(ConnId(77)), None, None, true);
    assert_eq!((rig.states(), rig.connector.poll_timeout()), (states, wake));
    assert_eq!(rig.dials(), [""; 0]);
}

/// Returns the waits until an address that fails each time is dialled again, in milliseconds.
fn waits(rig: &mut Rig, address: &str, count: usize) -> Vec<u128> {
    let mut out = Vec::new();
    while out.len() < count {
        let mut time = Duration::ZERO;
        while rig.dials().is_empty() {
            time += rig.wait();
        }
        out.push(time.as_millis());
        rig.ended(None, address, None);
    }
    out
}

#[test]
fn a_lost_connection_is_made_again_in_a_hurry() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], true);
    for _ in 0..10 {
        // Ten restarts in a row, each soon after the one before.
        assert_eq!(rig.dials(), ["10.0.0.1:6783"]);
        let conn = rig.added("10.0.0.1:6783", 1, true);
        rig.pass(SECOND * 2);
        rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
        let waits = waits(&mut rig, "10.0.0.1:6783", 4);
        for (wait, ms) in waits.iter().zip([50, 100, 200, 400]) {
            assert!((ms..ms + ms / 8 + 1).contains(wait), "{waits:?}");
        }
        rig.wait();
    }
    // What dies at once, again and again, is not dialled in a hurry.
    rig.dials();
    let conn = rig.added("10.0.0.1:6783", 1, true);
    rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
    assert!(waits(&mut rig, "10.0.0.1:6783", 1)[0] >= 1000);
}

#[test]
fn a_loop_of_short_connections_comes_to_rest() {
    let mut rig = Rig::new(|_| {});
    rig.connect(&["10.0.0.1"], true);
    let (start, mut dials) = (rig.now, 0);
    while rig.now < start + SECOND * 600 {
        if rig.dials().is_empty() {
            rig.wait();
            continue;
        }
        dials += 1;
        let conn = rig.added("10.0.0.1:6783", 1, true);
        rig.pass(Duration::from_millis(1100));
        rig.ended(Some(conn), "10.0.0.1:6783", Some(1));
    }
    assert!(dials < 120, "{dials} dials in ten minutes");
}

#[test]
fn a_peer_that_only_ever_dialled_us_is_looked_for_where_it_was_met() {
    let mut rig = Rig::new(|_| {});
    let conn = rig.added("10.0.0.7:40123", 7, false);
    assert!(rig.dials().is_empty());
    rig.pass(SECOND * 30);
    rig.end(Some(conn), None, Some(7), false);
    rig.wait();
    let dials = rig.drain();
    let dial = Dial {
        to: addr("10.0.0.7:6783"),
        accept_new: true,
    };
    assert_eq!(dials, [dial], "though nobody else knows it any more");
    // Less and less often, for a week.
    rig.ended(None, "10.0.0.7:6783", None);
    let mut last = rig.now;
    while let Some(next) = rig.connector.poll_timeout() {
        rig.pass(next.since(rig.now));
        if !rig.dials().is_empty() {
            last = rig.now;
            rig.ended(None, "10.0.0.7:6783", None);
        }
        assert!(rig.now < at(9 * 24 * 3600), "for ever");
    }
    let days = last.since(Time::ZERO).as_secs() / 86_400;
    assert!((6..=7).contains(&days), "{days} days");
}

#[test]
fn who_was_forgotten_is_not_looked_for() {
    for discovery in [true, false] {
        let mut rig = Rig::new(|config| config.discovery = discovery);
        rig.connect(&["10.0.0.1"], true);
        rig.dials();
        let first = rig.added("10.0.0.1:6783", 1, true);
        let second = rig.added("10.0.0.2:5555", 2, false);
        let third = rig.added("10.0.0.3:5555", 3, false);
        let met: Vec<_> = rig.connector.met().map(|(_, address)| address).collect();
        assert_eq!(met.len(), 3);
        assert!(rig.connector.take_met_changed() && !rig.connector.take_met_changed());
        rig.connector.forget(rig.now, ["10.0.0.1"]);
        rig.connector.forget_peer(rig.now, name(2));
        rig.end(Some(first), Some("10.0.0.1:6783"), Some(1), false);
        rig.end(Some(second), None, Some(2), false);
        rig.end(Some(third), None, Some(3), false);
        rig.pass(SECOND * 5);
        let expected: &[&str] = if discovery { &["10.0.0.3:6783"] } else { &[] };
        assert_eq!(rig.dials(), expected);
        let mut again = Rig::new(|config| config.discovery = discovery);
        again
            .connector
            .recall(again.now, [(name(1), addr("10.0.0.9:1"))]);
        let expected: &[&str] = if discovery { &["10.0.0.9:1"] } else { &[] };
        assert_eq!(again.dials(), expected);
    }
}
