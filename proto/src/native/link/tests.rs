mod table;

use std::collections::BTreeMap;

use super::*;
use crate::crypto::SessionKey;
use crate::native::keys::Binding;
use crate::native::report::REPORT_DATAGRAM_BYTES;
use crate::native::seal::Ciphers;
use crate::native::tunnel::{REKEY_DATAGRAMS, STREAM_REPORTS};
use crate::native::wire::{HEADER_BYTES, Header, Kind, TAG_BYTES};
use crate::sleeve::LinkId;
use crate::types::{ConnUid, PeerName};

/// Two ends and everything between them.
struct World {
    now: Time,
    ends: [Link; 2],
    outputs: [Vec<LinkOutput>; 2],
    addresses: [SocketAddrV4; 2],
    latency: Duration,
    /// Of 1000 datagrams, how many are lost.
    loss: u32,
    /// Whether datagrams of each end get lost.
    blocked: [bool; 2],
    /// The largest IP packets: those of each end's device, and on the way.
    device_mtu: usize,
    path_mtu: usize,
    /// Datagrams with frames each end sends per millisecond, and their size.
    frames: (u64, usize),
    /// How many of these arrived, could not be opened, and were lost.
    opened: u64,
    unopened: u64,
    rng: fastrand::Rng,
    queue: BTreeMap<(Time, u64), (usize, Piece)>,
    order: u64,
    secrets: u8,
}

enum Piece {
    Control(Control),
    Datagram(SocketAddrV4, Vec<u8>),
}

fn config(dialled: bool) -> LinkConfig {
    let [a, b] = [PeerName::from_bytes([1; 6]), PeerName::from_bytes([2; 6])];
    LinkConfig {
        id: LinkId(if dialled { 1 } else { 77 }),
        peer: if dialled { b } else { a },
        dialled,
        binding: Binding {
            dialler: a,
            acceptor: b,
            uid: ConnUid(9),
            transcript: [4; 32],
        },
        session_key: None,
        secret: Some([u8::from(dialled); 32].into()),
        ciphers: Ciphers::ALL,
        numbers: SessionNumbers::new(u64::from(dialled)),
        key_life: KeyLife::MAX,
        remote: dialled.then(|| "10.0.0.2:6783".parse().unwrap()),
    }
}

impl World {
    fn new(seed: u64) -> World {
        World::with(seed, config(true), config(false))
    }

    fn with(seed: u64, dialler: LinkConfig, acceptor: LinkConfig) -> World {
        World {
            now: Time::from_micros(5_000_000),
            ends: [Link::new(dialler), Link::new(acceptor)],
            outputs: [Vec::new(), Vec::new()],
            addresses: ["10.0.0.1:6783", "10.0.0.2:6783"].map(|text| text.parse().unwrap()),
            latency: Duration::from_millis(1),
            loss: 0,
            blocked: [false; 2],
            device_mtu: 1500,
            path_mtu: 1500,
            frames: (0, 0),
            opened: 0,
            unopened: 0,
            rng: fastrand::Rng::with_seed(seed),
            queue: BTreeMap::new(),
            order: 0,
            secrets: 1,
        }
    }

    fn started(seed: u64) -> World {
        let mut world = World::new(seed);
        world.start();
        world.run(Duration::from_secs(1));
        assert!(world.established(), "{:?}", world.ends);
        world
    }

    fn start(&mut self) {
        for end in 0..2 {
            self.ends[end].confirm(self.now);
            self.act(end);
        }
    }

    fn established(&self) -> bool {
        self.ends
            .iter()
            .all(|end| matches!(end.state, State::Established { .. }))
    }

    fn mtus(&self) -> [usize; 2] {
        [0, 1].map(|end| self.ends[end].path().mtu)
    }

    fn schedule(&mut self, after: Duration, end: usize, piece: Piece) {
        self.order += 1;
        self.queue
            .insert((self.now + after, self.order), (end, piece));
    }

    /// Does what an end wants.
    fn act(&mut self, end: usize) {
        while let Some(output) = self.ends[end].poll_output() {
            match &output {
                LinkOutput::Control(control) => {
                    let latency = self.latency * 2;
                    self.schedule(latency, 1 - end, Piece::Control(control.clone()));
                }
                LinkOutput::NeedSecret => {
                    self.secrets += 1;
                    let secret = [self.secrets; 32].into();
                    self.ends[end].handle_secret(self.now, secret);
                }
                LinkOutput::Report { report, bytes } => {
                    let mut datagram = vec![0; *bytes];
                    assert!(report.write(&mut datagram[HEADER_BYTES..bytes - TAG_BYTES]));
                    self.send(end, Kind::Report, STREAM_REPORTS, datagram);
                }
                _ => {}
            }
            self.outputs[end].push(output);
        }
    }

    fn send(&mut self, end: usize, kind: Kind, stream: u8, mut datagram: Vec<u8>) {
        let keys = self.ends[end].keys();
        let send = keys.send.unwrap();
        let counter = send.draw(stream, 1).unwrap();
        assert!(send.seal(kind, stream, counter, &mut datagram));
        let size = datagram.len() + 28;
        if size > self.device_mtu {
            self.ends[end].handle_too_big(self.now, self.device_mtu);
            return;
        }
        let lost = self.blocked[end] || size > self.path_mtu;
        if !lost && self.rng.u32(..1000) >= self.loss {
            let from = self.addresses[end];
            let latency = self.latency;
            self.schedule(latency, 1 - end, Piece::Datagram(from, datagram));
        }
    }

    fn arrive(&mut self, end: usize, piece: Piece) {
        match piece {
            Piece::Control(control) => {
                let _ = self.ends[end].handle_control(self.now, control);
            }
            Piece::Datagram(from, mut datagram) => {
                let header = Header::parse(&datagram).unwrap();
                let keys = self.ends[end].keys().receive;
                let key = keys.iter().find(|key| key.session() == header.session);
                let opened =
                    key.and_then(|key| Some((key, key.open(&header, &mut datagram).ok()?)));
                let Some((key, opened)) = opened else {
                    self.unopened += 1;
                    return;
                };
                key.note_datagrams(1);
                if opened.is_newest && self.ends[end].path().remote != Some(from) {
                    self.ends[end].handle_moved(self.now, from);
                }
                match header.kind {
                    Kind::Frames => self.opened += 1,
                    Kind::Report => {
                        let report = Report::parse(&datagram[opened.body]).unwrap();
                        let bytes = datagram.len();
                        self.ends[end].handle_report(self.now, key.epoch(), report, bytes);
                    }
                }
            }
        }
        self.act(end);
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut next_frames = self.now;
        loop {
            let mut next = until;
            if let Some(((at, _), _)) = self.queue.first_key_value() {
                next = next.min(*at);
            }
            for end in &self.ends {
                next = end.poll_timeout().map_or(next, |at| next.min(at));
            }
            if self.frames.0 > 0 {
                next = next.min(next_frames);
            }
            self.now = self.now.max(next);
            if self.now >= until {
                return;
            }
            for end in 0..2 {
                if self.ends[end]
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now)
                {
                    let before = self.ends[end].poll_timeout();
                    self.ends[end].handle_timeout(self.now);
                    assert_ne!(
                        self.ends[end].poll_timeout(),
                        before,
                        "it does not come to rest"
                    );
                    self.act(end);
                }
            }
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let (end, piece) = entry.remove();
                self.arrive(end, piece);
            }
            if self.frames.0 > 0 && next_frames <= self.now {
                next_frames = self.now + Duration::from_millis(1);
                for end in 0..2 {
                    for _ in 0..self.frames.0 {
                        let max = self.ends[end].path().max_payload;
                        let datagram = vec![0; self.frames.1.min(max)];
                        self.send(end, Kind::Frames, 0, datagram);
                    }
                }
            }
        }
    }

    /// Returns how often an end gave out such an output.
    fn count(&self, end: usize, is: impl Fn(&LinkOutput) -> bool) -> usize {
        self.outputs[end].iter().filter(|output| is(output)).count()
    }
}

#[test]
fn two_ends_are_established_within_a_few_round_trips() {
    let mut world = World::new(1);
    world.start();
    world.run(Duration::from_millis(40));
    assert!(world.established());
    assert_eq!(world.mtus(), [1410; 2]);
    for end in &world.ends {
        let view = end.view();
        assert_eq!(view.cipher, Some(Cipher::Aes256Gcm));
        assert_eq!(view.rtt, Some(Duration::from_millis(2)));
        assert!(end.path().mtu_verified);
    }
    assert_eq!(world.unopened, 0);
}

#[test]
fn ends_without_aes_use_the_other_cipher() {
    let portable = LinkConfig {
        ciphers: Ciphers::PORTABLE,
        ..config(false)
    };
    let mut world = World::with(1, config(true), portable);
    world.start();
    world.run(Duration::from_secs(1));
    assert!(world.established());
    let cipher = world.ends[0].view().cipher;
    assert_eq!(cipher, Some(Cipher::ChaCha20Poly1305));
}

/// Everything that keys depend on.
#[test]
fn ends_that_differ_in_anything_never_meet() {
    type Change = fn(&mut LinkConfig);
    let changes: [Change; 6] = [
        |config| config.binding.dialler = PeerName::from_bytes([8; 6]),
        |config| config.binding.acceptor = PeerName::from_bytes([8; 6]),
        |config| config.binding.uid = ConnUid(8),
        |config| config.binding.transcript[31] ^= 1,
        |config| config.session_key = Some(SessionKey::from_bytes([1; 32])),
        |config| config.dialled = true,
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut acceptor = config(false);
        change(&mut acceptor);
        let mut world = World::with(1, config(true), acceptor);
        world.start();
        world.run(Duration::from_secs(59));
        assert!(world.unopened > 10, "{n}");
        assert!(!world.ends.iter().any(|end| end.is_hopeless(world.now)));
        world.run(Duration::from_secs(2));
        for end in &world.ends {
            assert_eq!(end.state, State::Trying);
            assert!(end.is_hopeless(world.now));
        }
    }
    // And with the same password they meet.
    let with_key = |dialled| LinkConfig {
        session_key: Some(SessionKey::from_bytes([1; 32])),
        ..config(dialled)
    };
    let mut world = World::with(1, with_key(true), with_key(false));
    world.start();
    world.run(Duration::from_secs(1));
    assert!(world.established());
}

#[test]
fn a_hello_that_was_changed_leads_nowhere() {
    for byte in 0..45 {
        let mut world = World::new(1);
        world.start();
        for (_, piece) in world.queue.values_mut() {
            if let Piece::Control(Control::Hello(bytes)) = piece {
                match bytes.get_mut(byte) {
                    Some(byte) => *byte ^= 1,
                    None => bytes.push(0),
                }
                break;
            }
        }
        world.run(Duration::from_secs(5));
        assert!(!world.established(), "byte {byte}");
    }
}

#[test]
fn control_messages_of_all_kinds_are_survived() {
    let mut world = World::started(1);
    let now = world.now;
    let hello = |epoch, version, public| {
        Control::Hello(
            Hello {
                version,
                ciphers: Ciphers::ALL,
                epoch,
                session: 1,
                public,
            }
            .encode(),
        )
    };
    for end in 0..2 {
        for len in [0, 1, 43, 1025, 5000] {
            let result = world.ends[end].handle_control(now, Control::Hello(vec![0; len]));
            assert_eq!(result, Err(ControlError::Malformed(len)));
        }
        for epoch in [0, 2, u32::MAX] {
            let result = world.ends[end].handle_control(now, hello(epoch, 1, [9; 32]));
            assert_eq!(
                result,
                Err(ControlError::Epoch {
                    got: epoch,
                    wanted: 1
                })
            );
        }
        assert_eq!(Control::decode(9, &[]), Err(ControlError::UnknownTag(9)));
    }
    // The acceptor begins no epoch.
    let result = world.ends[0].handle_control(now, hello(1, 1, [9; 32]));
    assert_eq!(result, Err(ControlError::Epoch { got: 1, wanted: 1 }));
    assert!(world.established());

    // A public key that gives the secret away, and a version that nobody speaks.
    for (control, words) in [
        (hello(1, 1, [0; 32]), "unusable public key"),
        (hello(1, 2, [9; 32]), "version 2"),
    ] {
        let mut world = World::started(1);
        world.run(KEY_LINGER);
        let now = world.now;
        world.ends[1].handle_control(now, control).unwrap();
        world.act(1);
        let Some(LinkOutput::Failed(reason)) = world.outputs[1].last() else {
            panic!("{:?}", world.outputs[1]);
        };
        assert!(reason.contains(words), "{reason}");
        assert_eq!(world.ends[1].poll_timeout(), None);
        assert_eq!(world.ends[1].keys(), Keys::default());
        assert_eq!(
            world.ends[1].handle_control(now, Control::RekeyPlease),
            Ok(())
        );
    }
}

#[test]
fn ends_without_a_common_cipher_say_so() {
    let none = LinkConfig {
        ciphers: Ciphers::from_bits(0),
        ..config(false)
    };
    let mut world = World::with(1, config(true), none);
    world.start();
    world.run(Duration::from_secs(1));
    for end in 0..2 {
        assert_eq!(
            world.outputs[end].last(),
            Some(&LinkOutput::Failed(
                "no cipher in common with peer".to_owned()
            ))
        );
    }
}

#[test]
fn loss_alone_does_not_put_a_link_on_hold() {
    for seed in 0..5 {
        let mut world = World::started(seed);
        world.loss = 200;
        world.frames = (1, 100);
        world.run(Duration::from_secs(120));
        assert!(world.established());
        for end in &world.ends {
            let view = end.view();
            assert_eq!(view.holds, 0);
            for loss in [view.loss_out, view.loss_in] {
                assert!(
                    loss.is_some_and(|loss| (0.1..0.3).contains(&loss)),
                    "{view:?}"
                );
            }
            assert_eq!(end.path().mtu, 1410);
        }
    }
}

#[test]
fn silence_in_either_direction_puts_both_ends_on_hold_and_passes() {
    for blocked in [[true, true], [true, false], [false, true]] {
        for busy in [false, true] {
            let mut world = World::started(1);
            world.frames = (u64::from(busy), 100);
            world.run(Duration::from_secs(5));
            world.blocked = blocked;
            let limit = match busy {
                true => Duration::from_millis(2900),
                // One end notices at its next question, the other when it has missed it.
                false => REPORT_REST * 3,
            };
            world.run(limit);
            for end in 0..2 {
                assert!(
                    matches!(world.ends[end].state, State::OnHold { .. }),
                    "{end}"
                );
                assert_eq!(world.count(end, |o| matches!(o, LinkOutput::Held(_))), 1);
            }
            world.run(Duration::from_secs(30));
            world.blocked = [false; 2];
            world.run(Duration::from_millis(2500));
            assert!(world.established());
            assert_eq!(world.ends[0].view().holds, 1);
        }
    }
}

#[test]
fn a_link_that_comes_and_goes_is_trusted_less_and_less() {
    let mut world = World::started(1);
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.blocked = [true; 2];
        world.frames = (1, 100);
        world.run(Duration::from_secs(10));
        assert!(!world.established());
        world.frames = (0, 0);
        world.blocked = [false; 2];
        let since = world.now;
        while !world.established() {
            world.run(Duration::from_millis(100));
        }
        waits.push(world.now.since(since).as_secs());
    }
    assert!(
        waits.is_sorted() && waits[0] < 3 && waits[5] > 20,
        "{waits:?}"
    );
    world.run(Duration::from_secs(400));
    assert_eq!(world.ends[0].strikes, 0);
}

#[test]
fn keys_are_replaced_by_time_and_no_datagram_is_lost() {
    let mut world = World::started(1);
    world.latency = Duration::from_millis(20);
    for epoch in 1..4 {
        // Frames only around the time at which it happens, for the sake of the test's own time.
        world.frames = (0, 0);
        let due = world.ends[0].ring.keyed_at() + KEY_TIME_MAX;
        world.run(due.since(world.now) - Duration::from_secs(1));
        world.frames = (1, 100);
        world.run(Duration::from_secs(14));
        for end in &world.ends {
            assert_eq!(end.view().epoch, epoch);
            let keys = end.keys();
            assert_eq!(keys.send.as_ref().map(|key| key.epoch()), Some(epoch));
            assert_eq!(keys.receive.len(), 1, "the key before is forgotten");
        }
        assert!(world.established());
    }
    assert!(world.opened > 50_000);
    assert_eq!(world.unopened, 0);
}

#[test]
fn keys_are_replaced_when_either_end_has_worn_its_key() {
    for end in 0..2 {
        let mut world = World::started(1);
        world.run(Duration::from_secs(20));
        world.frames = (1, 100);
        world.ends[end].ring.wear_out();
        world.run(Duration::from_secs(5));
        assert_eq!(world.ends[0].view().epoch, 1, "end {end}");
        assert_eq!(world.ends[1].view().epoch, 1, "end {end}");
        assert_eq!(world.unopened, 0);
        assert!(world.established());
        let worn = world.ends[end].keys().send.unwrap();
        assert!(worn.datagrams() < REKEY_DATAGRAMS);
    }
}

/// An end that may use a key for a short time or for few datagrams only, whatever the other does.
#[test]
fn keys_live_as_long_as_the_end_with_less_patience_says() {
    let short = KeyLife {
        time: Duration::from_secs(20),
        datagrams: REKEY_DATAGRAMS,
    };
    let few = KeyLife {
        time: KEY_TIME_MAX,
        datagrams: 1000,
    };
    for (life, epochs) in [(short, 4..=5), (few, 8..=10)] {
        for end in 0..2 {
            let mut configs = [config(true), config(false)];
            configs[end].key_life = life;
            let [a, b] = configs;
            let mut world = World::with(1, a, b);
            world.start();
            world.run(Duration::from_secs(1));
            world.frames = (1, 100);
            world.run(Duration::from_secs(100));
            for end in &world.ends {
                assert!(epochs.contains(&end.view().epoch), "{:?}", end.view());
            }
            assert_eq!(world.unopened, 0);
            assert!(world.established());
        }
    }
}

#[test]
fn nobody_makes_the_acceptor_hurry_with_new_keys() {
    let mut world = World::started(1);
    world.run(KEY_LINGER);
    let epoch = world.ends[1].view().epoch;
    let hello = |epoch| {
        Control::Hello(
            Hello {
                version: VERSION,
                ciphers: Ciphers::ALL,
                epoch,
                session: 1,
                public: [9; 32],
            }
            .encode(),
        )
    };
    let now = world.now;
    let end = &mut world.ends[1];
    assert_eq!(end.handle_control(now, hello(epoch + 1)), Ok(()));
    end.handle_secret(now, [3; 32].into());
    for _ in 0..100 {
        let result = end.handle_control(now, hello(epoch + 2));
        assert_eq!(result, Err(ControlError::Hasty));
    }
    assert_eq!(end.view().epoch, epoch + 1);
}

#[test]
fn nobody_makes_the_dialler_hurry_with_new_keys() {
    let mut world = World::started(1);
    for _ in 0..1000 {
        let now = world.now;
        let please = Control::RekeyPlease;
        assert_eq!(world.ends[0].handle_control(now, please.clone()), Ok(()));
        assert_eq!(world.ends[1].handle_control(now, please), Ok(()));
        world.act(0);
        world.run(Duration::from_millis(100));
    }
    let epoch = world.ends[0].view().epoch;
    assert!((8..=10).contains(&epoch), "{epoch}");
    assert_eq!(world.ends[1].view().epoch, epoch);
}

#[test]
fn all_usual_paths_are_found() {
    for (device, path) in [
        (1500, 1500),
        (1500, 1492),
        (1500, 1300),
        (1500, 1237),
        (1500, 700),
        (9000, 9000),
        (9000, 1500),
        (65535, 65535),
        (65535, 4000),
        (1400, 1400),
    ] {
        let mut world = World::new(1);
        (world.device_mtu, world.path_mtu) = (device, path);
        world.start();
        world.run(Duration::from_secs(2));
        assert!(world.established(), "{device} {path}");
        world.run(Duration::from_secs(3));
        for mtu in world.mtus() {
            let found = mtu + 90;
            assert!(
                found <= path && found + 8 >= path,
                "{device} {path}: {found}"
            );
        }
    }
}

#[test]
fn a_path_that_narrows_silently_is_noticed_by_its_losses() {
    for path in [1300, 1000, 1499] {
        let mut world = World::started(1);
        world.frames = (1, 1472);
        world.run(Duration::from_secs(3));
        world.path_mtu = path;
        world.run(Duration::from_secs(2));
        assert!(world.established());
        for mtu in world.mtus() {
            assert!(
                mtu + 90 <= path && mtu + 90 + 8 >= path,
                "{path}: {}",
                mtu + 90
            );
        }
        // And that it widened again, by looking from time to time.
        world.frames = (0, 0);
        world.path_mtu = 1500;
        world.run(Duration::from_secs(90));
        assert_eq!(world.mtus(), [1410; 2]);
    }
}

#[test]
fn a_device_with_a_smaller_mtu_is_believed_at_once() {
    let mut world = World::started(1);
    world.device_mtu = 1400;
    for end in 0..2 {
        world.ends[end].handle_too_big(world.now, 1400);
        world.act(end);
        assert!(world.ends[end].path().max_payload <= 1372);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.mtus(), [1310; 2]);
    assert!(world.established());
}

#[test]
fn a_peer_is_followed_to_its_new_address() {
    let mut world = World::started(1);
    world.addresses[0] = "192.0.2.1:40000".parse().unwrap();
    world.frames = (1, 100);
    world.run(Duration::from_secs(3));
    assert_eq!(world.ends[1].path().remote, Some(world.addresses[0]));
    let moved = LinkOutput::Moved {
        from: "10.0.0.1:6783".parse().unwrap(),
        to: world.addresses[0],
    };
    assert_eq!(world.count(1, |output| *output == moved), 1);
    assert!(world.established());
}

#[test]
fn an_early_hello_waits_until_the_link_is_to_start() {
    let mut world = World::new(1);
    world.ends[0].confirm(world.now);
    world.act(0);
    world.run(Duration::from_secs(1));
    assert_eq!(world.ends[1].state, State::Passive);
    assert_eq!(world.outputs[1], []);
    world.ends[1].confirm(world.now);
    world.act(1);
    world.run(Duration::from_secs(1));
    assert!(world.established());
}

#[test]
fn numbers_of_sessions_are_all_different() {
    for key in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
        let numbers = SessionNumbers::new(key);
        let mut seen: Vec<u32> = (0..20_000)
            .flat_map(|link| (0..4).map(move |epoch| numbers.number(LinkId(link), epoch)))
            .collect();
        // Neighbours spread, also over what steering looks at.
        let low: std::collections::BTreeSet<u8> = seen[..64].iter().map(|n| *n as u8).collect();
        assert!(low.len() > 40, "{}", low.len());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 80_000);
    }
}

#[test]
fn a_flood_of_reports_is_not_answered_without_bound() {
    let mut world = World::started(1);
    let report = Report {
        sent_at: world.now,
        answer: None,
        sent: 0,
        received: 0,
        wants_answer: true,
    };
    for _ in 0..10_000 {
        let bytes = REPORT_DATAGRAM_BYTES;
        world.ends[0].handle_report(world.now, 0, report, bytes);
    }
    assert!(world.ends[0].outputs.len() <= OUTPUTS_MAX + 1);
}

/// Returns how many reports both ends gave out since this was last called.
fn take_reports(world: &mut World) -> usize {
    let is_report = |output: &LinkOutput| match output {
        // Larger ones look for larger sizes.
        LinkOutput::Report { bytes, .. } => *bytes == REPORT_DATAGRAM_BYTES,
        _ => false,
    };
    let count = (0..2).map(|end| world.count(end, is_report)).sum();
    world.outputs = [Vec::new(), Vec::new()];
    count
}

#[test]
fn a_link_at_rest_says_hardly_anything() {
    let mut world = World::started(1);
    world.run(Duration::from_secs(60));
    take_reports(&mut world);
    let rests = 20;
    world.run(REPORT_REST * rests);
    let reports = take_reports(&mut world);
    // A report and its answer for each rest; one end asks for both.
    let most = 2 * rests as usize + 2;
    assert!((rests as usize..=most).contains(&reports), "{reports}");
    assert!(world.established());
}

#[test]
fn frames_wake_a_link_that_rests() {
    let mut world = World::started(1);
    world.run(REPORT_REST * 2 + Duration::from_secs(1));
    world.frames = (1, 100);
    world.run(Duration::from_secs(1));
    take_reports(&mut world);
    world.blocked[0] = true;
    world.run(HOLD_AFTER + REPORT_BUSY + Duration::from_millis(10));
    assert_eq!(world.ends.each_ref().map(|end| end.holds), [1, 1]);
}

#[test]
fn first_frames_on_a_dead_path_are_noticed() {
    let mut world = World::started(1);
    world.run(REPORT_REST * 2 + Duration::from_secs(1));
    world.blocked = [true; 2];
    world.frames = (1, 100);
    world.run(HOLD_AFTER + REST_LOOK + Duration::from_millis(10));
    assert_eq!(world.ends.each_ref().map(|end| end.holds), [1, 1]);
}

#[test]
fn a_dead_path_is_noticed_at_rest_and_soon_when_watched() {
    for (watched, at_most) in [(false, REPORT_REST * 2), (true, REPORT_WATCH * 2)] {
        let mut world = World::started(1);
        world.run(Duration::from_secs(100));
        let now = world.now;
        world.ends[1].watch(now, watched);
        world.run(REPORT_REST);
        world.blocked[0] = true;
        world.run(at_most);
        assert_eq!(world.ends[1].holds, 1, "watched: {watched}");
    }
}

#[test]
fn a_look_is_one_question() {
    let mut world = World::started(1);
    world.run(REPORT_REST * 2 + Duration::from_secs(10));
    take_reports(&mut world);
    let now = world.now;
    world.ends[0].look(now);
    world.ends[0].look(now);
    world.act(0);
    world.run(Duration::from_secs(2));
    let is_question = |output: &LinkOutput| match output {
        // Larger ones see whether the size in use still passes.
        LinkOutput::Report { report, bytes } => {
            report.wants_answer && *bytes == REPORT_DATAGRAM_BYTES
        }
        _ => false,
    };
    assert_eq!([0, 1].map(|end| world.count(end, is_question)), [1, 0]);
    assert!(world.ends[0].reports.waiting_since.is_none());
}

/// What is in memory between two epochs leads to neither: each needs random bytes that were not
/// there before.
#[test]
fn every_epoch_needs_fresh_random_bytes() {
    let mut world = World::started(1);
    let is_secret = |output: &LinkOutput| *output == LinkOutput::NeedSecret;
    for epoch in 1..4 {
        assert!(world.ends.iter().all(|end| end.ring.needs_secret()));
        world.run(KEY_LINGER);
        let now = world.now;
        world.ends[0]
            .handle_control(now, Control::RekeyPlease)
            .unwrap();
        world.act(0);
        world.run(Duration::from_secs(1));
        for end in 0..2 {
            assert_eq!(world.ends[end].view().epoch, epoch);
            assert_eq!(world.count(end, is_secret), epoch as usize);
        }
    }
    // Without them the keys that are in use stay.
    world.run(KEY_LINGER);
    let now = world.now;
    for _ in 0..3 {
        world.ends[0]
            .handle_control(now, Control::RekeyPlease)
            .unwrap();
        world.ends[0].handle_timeout(now);
    }
    let mut asked = 0;
    while let Some(output) = world.ends[0].poll_output() {
        asked += usize::from(is_secret(&output));
    }
    assert_eq!(asked, 1);
    world.run(Duration::from_secs(5));
    assert!(world.established());
}
