mod table;

use std::time::Duration;

use super::*;
use crate::native::{Ciphers, KeyLife, SessionNumbers};
use crate::types::{ConnUid, PeerName};

fn params(dialled: bool) -> Params {
    Params {
        us: PeerName::from_bytes([if dialled { 1 } else { 2 }; 6]),
        peer: PeerName::from_bytes([if dialled { 2 } else { 1 }; 6]),
        uid: ConnUid(7),
        remote: "10.0.0.2:6783".parse().unwrap(),
        dialled,
        session_key: None,
        trusted: false,
        sealed_only: false,
        quiet: false,
        transcript: [3; 32],
        secret: Some([u8::from(dialled); 32].into()),
        ciphers: Ciphers::ALL,
        numbers: SessionNumbers::new(5),
        key_life: KeyLife::MAX,
    }
}

fn switch(theirs: Option<&str>) -> OverlaySwitch {
    let mut next = 0;
    let theirs: Option<Vec<String>> =
        theirs.map(|names| names.split(' ').map(str::to_owned).collect());
    OverlaySwitch::prepare(&[Overlay::Sleeve], theirs.as_deref(), params(true), || {
        next += 1;
        LinkId(next)
    })
    .unwrap()
}

fn drain(switch: &mut OverlaySwitch) -> Vec<SwitchOutput> {
    std::iter::from_fn(|| switch.poll_output()).collect()
}

#[test]
fn vectors() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/sleeve.json");
    let vectors: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let cases = vectors["overlay_negotiation"].as_array().unwrap();
    for case in cases {
        let texts = |key: &str| -> Vec<&str> {
            let list = case[key].as_array();
            list.map_or(vec![], |list| {
                list.iter().map(|name| name.as_str().unwrap()).collect()
            })
        };
        let theirs: Vec<&str> = case["theirs_feature"]
            .as_str()
            .unwrap()
            .split(' ')
            .collect();
        let agreed = common(&texts("ours"), &theirs);
        match case["error"].as_str() {
            Some(error) => assert!(agreed.unwrap_err().to_string().starts_with(error)),
            None => assert_eq!(agreed.unwrap(), texts("index_order")),
        }
    }
    assert_eq!(cases.len(), 8);
}

#[test]
fn a_second_overlay_before_sleeve_keeps_the_order_of_the_first_list() {
    assert_eq!(
        common(&["weft", "sleeve"], &["weft", "sleeve"]).unwrap(),
        ["weft", "sleeve"]
    );
    assert_eq!(
        common(&["weft", "sleeve"], &["fastdp", "sleeve"]).unwrap(),
        ["sleeve"]
    );
}

#[test]
fn established_over_the_switched_form() {
    let mut switch = switch(Some("fastdp sleeve"));
    switch.confirm(Time::ZERO);
    let outputs = drain(&mut switch);
    assert!(outputs.contains(&SwitchOutput::Order(vec![LinkId(1)])));
    let from = "10.0.0.2:6783".parse().unwrap();
    switch.handle_special(Time::ZERO, LinkId(1), from, Special::Heartbeat(ConnUid(7)));
    assert_eq!(drain(&mut switch), [SwitchOutput::Message(vec![7, 0, 1])]);
    switch.handle_special(Time::ZERO, LinkId(1), from, Special::MtuTest { mtu: 1414 });
    assert_eq!(
        drain(&mut switch),
        [SwitchOutput::Message(vec![7, 0, 3, 5, 0x86])]
    );
    assert!(!switch.is_established());
    switch.handle_control(Time::ZERO, 0, 1, &[]).unwrap();
    assert!(switch.is_established());
    assert!(drain(&mut switch).contains(&SwitchOutput::Established));
    assert_eq!(switch.active().unwrap().health, Health::Established);
}

#[test]
fn established_over_the_legacy_form() {
    let mut switch = switch(None);
    switch.confirm(Time::ZERO);
    drain(&mut switch);
    let from = "10.0.0.2:6783".parse().unwrap();
    switch.handle_special(Time::ZERO, LinkId(1), from, Special::Heartbeat(ConnUid(7)));
    switch.handle_special(Time::ZERO, LinkId(1), from, Special::FragmentationTest);
    assert_eq!(
        drain(&mut switch),
        [
            SwitchOutput::Message(vec![1]),
            SwitchOutput::Message(vec![2])
        ]
    );
    switch.handle_control(Time::ZERO, 0, 1, &[]).unwrap();
    assert!(switch.is_established());
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    for legacy in [false, true] {
        let mut switch = switch((!legacy).then_some("sleeve"));
        switch.confirm(Time::ZERO);
        drain(&mut switch);
        for tag in 0..=255 {
            for place in [0, 1, 2, 255, usize::MAX] {
                let good = place == 0 && (1..=2).contains(&tag);
                let result = switch.handle_control(Time::ZERO, place, tag, &[]);
                assert_eq!(result.is_ok(), good, "{place} {tag}");
            }
        }
        for output in drain(&mut switch) {
            assert!(!matches!(
                output,
                SwitchOutput::Message(_) | SwitchOutput::Broken(_)
            ));
        }
        switch.handle_special(
            Time::ZERO,
            LinkId(99),
            "10.0.0.9:1".parse().unwrap(),
            Special::Heartbeat(ConnUid(7)),
        );
        assert_eq!(drain(&mut switch), []);
    }
}

#[test]
fn the_last_forwarder_breaks_the_connection() {
    let mut switch = switch(Some("sleeve"));
    switch.confirm(Time::ZERO);
    drain(&mut switch);
    switch.handle_timeout(Time::ZERO + Duration::from_secs(60));
    let outputs = drain(&mut switch);
    let [
        SwitchOutput::LinkFailed { .. },
        SwitchOutput::Order(none),
        SwitchOutput::Broken(why),
    ] = &outputs[..]
    else {
        panic!("{outputs:?}");
    };
    assert!(none.is_empty());
    assert!(why.contains("timed out waiting for UDP heartbeat"), "{why}");
    assert_eq!(switch.poll_timeout(), None);
    switch.handle_timeout(Time::ZERO + Duration::from_secs(70));
    switch.handle_control(Time::ZERO, 0, 1, &[]).unwrap();
    assert_eq!(drain(&mut switch), []);
}

#[test]
fn sleeve_over_ipv6_is_not_possible() {
    let params = Params {
        remote: "[::1]:6783".parse().unwrap(),
        ..params(true)
    };
    let mut switch =
        OverlaySwitch::prepare(&[Overlay::Sleeve], None, params, || LinkId(1)).unwrap();
    switch.confirm(Time::ZERO);
    assert!(matches!(&drain(&mut switch)[..], [SwitchOutput::Broken(_)]));
}

#[test]
fn data_prefers_the_first_established_link() {
    let links = |healths: &[Health]| {
        preference((0..).map(LinkId).zip(healths))
            .iter()
            .map(|link| link.0)
            .collect::<Vec<_>>()
    };
    use Health::{Established, Pending};
    let (hold, failed) = (Health::OnHold(String::new()), Health::Failed(String::new()));
    assert_eq!(links(&[Pending, Pending]), [0, 1]);
    assert_eq!(links(&[Pending, Established]), [1, 0]);
    assert_eq!(links(&[Established, Established]), [0, 1]);
    assert_eq!(links(&[hold.clone(), Established]), [1, 0]);
    assert_eq!(links(&[failed.clone(), Pending]), [1]);
    assert_eq!(links(&[hold.clone(), Pending]), [1, 0]);
    assert_eq!(links(&[hold, failed.clone()]), [0]);
    assert_eq!(links(&[failed.clone(), failed]), Vec::<u64>::new());
}
