mod table;

use proptest::prelude::*;

use super::*;

const UID: ConnUid = ConnUid(0xf00d);

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

fn address(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, 0, 2].into(), port)
}

fn drain(link: &mut Link) -> Vec<LinkOutput> {
    std::iter::from_fn(|| link.poll_output()).collect()
}

fn heartbeat() -> LinkOutput {
    LinkOutput::Special(Special::Heartbeat(UID))
}

/// Returns a link of the dialler, confirmed at 0 and without pending outputs.
fn confirmed() -> Link {
    let mut link = Link::new(UID, true, Some(address(6783)));
    link.confirm(Time::ZERO);
    drain(&mut link);
    link
}

#[test]
fn the_dialler_speaks_first_and_often() {
    let mut link = Link::new(UID, true, Some(address(6783)));
    assert_eq!(link.poll_timeout(), None);
    link.confirm(Time::ZERO);
    assert_eq!(drain(&mut link), [LinkOutput::PathChanged, heartbeat()]);
    let mut sent = Vec::new();
    while sent.len() < 8 {
        let now = link.poll_timeout().unwrap();
        link.handle_timeout(now);
        assert_eq!(drain(&mut link), [heartbeat()]);
        sent.push(now.as_micros() / 1000);
    }
    assert_eq!(sent, [10, 30, 70, 150, 310, 810, 1310, 1810]);
}

#[test]
fn the_acceptor_waits_for_a_heartbeat_with_the_right_uid() {
    let mut link = Link::new(UID, false, None);
    link.handle_special(at(0), address(1), Special::Heartbeat(UID));
    assert_eq!(drain(&mut link), [], "before it is confirmed");
    link.confirm(at(1));
    assert_eq!(drain(&mut link), [LinkOutput::PathChanged]);
    link.handle_special(at(2), address(1), Special::Heartbeat(ConnUid(1)));
    assert_eq!(drain(&mut link), []);
    link.handle_special(at(3), address(1), Special::Heartbeat(UID));
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::PathChanged,
            heartbeat(),
            LinkOutput::Control(Control::ConnectionEstablished)
        ]
    );
    assert_eq!(link.path().remote, Some(address(1)));
    link.handle_special(at(4), address(1), Special::Heartbeat(UID));
    assert_eq!(drain(&mut link), [], "only the first is acknowledged");
}

#[test]
fn established_when_the_peer_hears_us_and_only_once() {
    let mut link = confirmed();
    link.handle_control(at(5), Control::ConnectionEstablished);
    assert!(link.is_established());
    let provoking = LinkOutput::Special(Special::PROBE);
    let fragmentation = LinkOutput::Special(Special::FragmentationTest);
    assert_eq!(
        drain(&mut link),
        [LinkOutput::Established, fragmentation, provoking]
    );
    link.handle_control(at(6), Control::ConnectionEstablished);
    assert_eq!(drain(&mut link), []);
    assert_eq!(link.poll_timeout(), Some(at(10_005)));
    link.handle_timeout(at(10_005));
    assert_eq!(drain(&mut link), [heartbeat()]);
    assert_eq!(link.poll_timeout(), Some(at(20_005)));
}

#[test]
fn fragmentation_is_proven_until_the_next_test() {
    let mut link = confirmed();
    link.handle_control(at(0), Control::ConnectionEstablished);
    assert!(!link.path().fragments);
    link.handle_control(at(1), Control::FragmentationReceived);
    assert!(link.path().fragments);
    drain(&mut link);
    for ms in (10_000..300_000).step_by(10_000) {
        link.handle_special(at(ms), address(6783), Special::Heartbeat(UID));
        link.handle_timeout(at(ms));
    }
    assert!(link.path().fragments);
    link.handle_timeout(at(300_000));
    assert!(!link.path().fragments);
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut link = confirmed();
    link.handle_special(at(1), address(6783), Special::Heartbeat(UID));
    drain(&mut link);
    link.handle_special(at(2), address(999), Special::Heartbeat(ConnUid(0)));
    assert_eq!(link.path().remote, Some(address(6783)));
    link.handle_special(at(3), address(999), Special::Heartbeat(UID));
    assert_eq!(link.path().remote, Some(address(999)));
    let moved = LinkOutput::Moved {
        from: address(6783),
        to: address(999),
    };
    assert_eq!(drain(&mut link), [LinkOutput::PathChanged, moved]);
}

#[test]
fn a_silent_peer_fails_the_link_once() {
    let mut link = confirmed();
    link.handle_special(at(30_000), address(6783), Special::Heartbeat(UID));
    drain(&mut link);
    while let Some(now) = link.poll_timeout() {
        link.handle_timeout(now);
        if now >= at(90_000) {
            break;
        }
        assert!(!drain(&mut link).is_empty());
    }
    assert_eq!(
        drain(&mut link),
        [LinkOutput::Failed(LinkError::HeartbeatTimeout)]
    );
    assert_eq!(link.poll_timeout(), None);
    link.handle_special(at(90_001), address(6783), Special::Heartbeat(UID));
    link.handle_special(at(90_001), address(6783), Special::FragmentationTest);
    link.handle_control(at(90_001), Control::ConnectionEstablished);
    link.handle_too_big(at(90_001), 1500);
    link.confirm(at(90_001));
    link.handle_timeout(at(90_002));
    assert_eq!(drain(&mut link), []);
}

#[test]
fn tests_are_answered_with_what_arrived() {
    let mut link = confirmed();
    link.handle_special(at(1), address(6783), Special::MtuTest { mtu: 1414 });
    link.handle_special(at(1), address(6783), Special::FragmentationTest);
    assert_eq!(
        drain(&mut link),
        [
            LinkOutput::Control(Control::MtuVerified(1414)),
            LinkOutput::Control(Control::FragmentationReceived)
        ]
    );
    for _ in 0..1000 {
        link.handle_special(at(1), address(6783), Special::MtuTest { mtu: 1 });
    }
    assert_eq!(drain(&mut link).len(), OUTPUTS_MAX);
}

#[test]
fn the_path_mtu_sets_both_limits() {
    for (encrypted, mtu) in [(true, 1414), (false, 1438)] {
        let mut link = Link::new(UID, encrypted, Some(address(6783)));
        link.confirm(at(0));
        assert_eq!((link.path().mtu, link.path().max_payload), (65535, 65507));
        link.handle_control(at(0), Control::ConnectionEstablished);
        link.handle_too_big(at(1), 1500);
        let path = link.path();
        assert_eq!((path.mtu, path.max_payload), (mtu, 1472));
        assert!(!path.mtu_verified);
        link.handle_control(at(2), Control::MtuVerified(u16::try_from(mtu).unwrap()));
        assert!(link.path().mtu_verified);
        assert_eq!(link.path().mtu, mtu);
    }
}

#[test]
fn control_messages_have_their_bytes() {
    for (control, tag, content) in [
        (Control::ConnectionEstablished, 1, vec![]),
        (Control::FragmentationReceived, 2, vec![]),
        (Control::MtuVerified(1414), 3, vec![0x05, 0x86]),
    ] {
        assert_eq!((control.tag(), control.content()), (tag, content.clone()));
        assert_eq!(Control::decode(tag, &content), Ok(control));
    }
    for len in [0, 1] {
        let error = ControlError::Length { tag: 3, len };
        assert_eq!(Control::decode(3, &[5, 6][..len]), Err(error));
    }
    for tag in [0, 4, 255] {
        assert_eq!(
            Control::decode(tag, &[]),
            Err(ControlError::UnknownTag(tag))
        );
    }
}

#[derive(Clone, Debug)]
enum Input {
    Confirm,
    Special(u16, Special),
    Control(Control),
    TooBig(usize),
    Timeout,
}

fn input() -> impl Strategy<Value = Input> {
    let special = prop_oneof![
        Just(Special::Heartbeat(UID)),
        any::<u64>().prop_map(|uid| Special::Heartbeat(ConnUid(uid))),
        Just(Special::FragmentationTest),
        any::<u16>().prop_map(|mtu| Special::MtuTest { mtu }),
    ];
    let control = prop_oneof![
        Just(Control::ConnectionEstablished),
        Just(Control::FragmentationReceived),
        any::<u16>().prop_map(Control::MtuVerified),
        (400u16..1500).prop_map(Control::MtuVerified),
    ];
    prop_oneof![
        Just(Input::Confirm),
        (1u16..4, special).prop_map(|(port, special)| Input::Special(port, special)),
        control.prop_map(Input::Control),
        any::<usize>().prop_map(Input::TooBig),
        (0usize..2000).prop_map(Input::TooBig),
        Just(Input::Timeout),
    ]
}

proptest! {
    #[test]
    fn any_order_of_inputs_keeps_the_rules(
        dialled: bool,
        inputs in proptest::collection::vec((0u64..20_000, input()), 0..100),
    ) {
        let mut link = Link::new(UID, true, dialled.then_some(address(1)));
        let (mut now, mut established, mut failed) = (Time::ZERO, 0, 0);
        for (wait, input) in inputs {
            now += Duration::from_millis(wait);
            match input.clone() {
                Input::Confirm => link.confirm(now),
                Input::Special(port, special) => {
                    link.handle_special(now, address(port), special);
                }
                Input::Control(control) => link.handle_control(now, control),
                Input::TooBig(mtu) => link.handle_too_big(now, mtu),
                Input::Timeout => link.handle_timeout(now),
            }
            let outputs = drain(&mut link);
            prop_assert!(outputs.len() <= OUTPUTS_MAX);
            for output in outputs {
                prop_assert_eq!(failed, 0, "nothing follows a failure");
                established += u32::from(output == LinkOutput::Established);
                failed += u32::from(matches!(output, LinkOutput::Failed(_)));
            }
            let path = link.path();
            prop_assert!((68..=65535).contains(&path.mtu));
            prop_assert!(path.max_payload <= PACKET_BYTES_MAX);
            if matches!(input, Input::Timeout) {
                prop_assert!(link.poll_timeout().is_none_or(|at| at > now), "nothing stays due");
            }
        }
        prop_assert!(established <= 1 && failed <= 1);
    }
}

#[test]
fn a_plain_packet_is_taken_from_the_address_of_its_link_while_it_is_open() {
    let tunnel = |key| {
        let config = crate::sleeve::TunnelConfig {
            id: crate::sleeve::LinkId(1),
            us: crate::types::PeerName::from_bytes([1; 6]),
            peer: crate::types::PeerName::from_bytes([2; 6]),
            key,
            dialled: true,
            remote: Some(address(1)),
        };
        crate::sleeve::Tunnel::new(config)
    };
    let plain = tunnel(None);
    assert!(plain.takes(address(1)) && !plain.takes(address(2)));
    plain.set_open(false);
    assert!(!plain.takes(address(1)));
    let sealed = tunnel(Some(crate::crypto::SessionKey::from_bytes([1; 32])));
    sealed.set_open(false);
    assert!(
        sealed.takes(address(2)),
        "it opened with the key of the peer"
    );
}
