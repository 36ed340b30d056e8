//! What a sleeve link does about each input in each of its states.

use super::*;

/// States by name, each reached in the way that a connection reaches it.
fn states() -> Vec<(&'static str, Link)> {
    let passive = || Link::new(UID, true, Some(address(6783)));
    let unknown = || {
        let mut link = Link::new(UID, true, None);
        link.confirm(at(0));
        link
    };
    let established = || {
        let mut link = confirmed();
        link.handle_special(at(1), address(6783), Special::Heartbeat(UID));
        link.handle_control(at(1), Control::ConnectionEstablished);
        link
    };
    let failed = || {
        let mut link = confirmed();
        link.handle_timeout(at(60_000));
        link
    };
    vec![
        ("passive", passive()),
        ("fast, address unknown", unknown()),
        ("fast", confirmed()),
        ("established", established()),
        ("failed", failed()),
    ]
}

const NOW: Time = Time::from_micros(60_001_000);

type Input = (&'static str, fn(&mut Link));

const INPUTS: [Input; 11] = [
    ("confirm", |link| link.confirm(NOW)),
    ("heartbeat", |link| {
        link.handle_special(NOW, address(6783), Special::Heartbeat(UID));
    }),
    ("heartbeat from elsewhere", |link| {
        link.handle_special(NOW, address(9), Special::Heartbeat(UID));
    }),
    ("heartbeat of another connection", |link| {
        link.handle_special(NOW, address(6783), Special::Heartbeat(ConnUid(1)));
    }),
    ("fragmentation test", |link| {
        link.handle_special(NOW, address(6783), Special::FragmentationTest);
    }),
    ("mtu test", |link| {
        link.handle_special(NOW, address(6783), Special::MtuTest { mtu: 1400 });
    }),
    ("control 1, established", |link| {
        link.handle_control(NOW, Control::ConnectionEstablished);
    }),
    ("control 2, fragments arrive", |link| {
        link.handle_control(NOW, Control::FragmentationReceived);
    }),
    ("control 3, mtu verified", |link| {
        link.handle_control(NOW, Control::MtuVerified(1400));
    }),
    ("too big", |link| link.handle_too_big(NOW, 1000)),
    ("silence", |link| link.handle_timeout(at(70_000))),
];

/// `state | input -> next state: outputs`.
fn table() -> Vec<String> {
    let mut rows = Vec::new();
    for (name, input) in INPUTS {
        for (state, mut link) in states() {
            drain(&mut link);
            input(&mut link);
            let outputs: Vec<String> = drain(&mut link)
                .iter()
                .map(|output| match output {
                    LinkOutput::Special(special) => format!("{special:?}"),
                    LinkOutput::Control(control) => format!("{control:?}"),
                    LinkOutput::Moved { .. } => "Moved".to_owned(),
                    other => format!("{other:?}"),
                })
                .map(|text| text.split(['(', ' ']).next().unwrap().to_owned())
                .collect();
            let next = format!("{:?}", link.state);
            rows.push(format!("{state} | {name} -> {next}: {}", outputs.join(" ")));
        }
    }
    rows
}

#[test]
fn every_input_in_every_state() {
    let rows = table();
    let expected: Vec<&str> = EXPECTED.trim().lines().collect();
    assert_eq!(rows.len(), 5 * INPUTS.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.trim_end(), *expected, "all rows:\n{}", rows.join("\n"));
    }
    assert_eq!(expected.len(), rows.len(), "all rows:\n{}", rows.join("\n"));
}

const EXPECTED: &str = "
passive | confirm -> Fast: PathChanged Heartbeat
fast, address unknown | confirm -> Fast:
fast | confirm -> Fast:
established | confirm -> Established:
failed | confirm -> Failed:
passive | heartbeat -> Passive:
fast, address unknown | heartbeat -> Fast: PathChanged Heartbeat ConnectionEstablished
fast | heartbeat -> Fast: ConnectionEstablished
established | heartbeat -> Established:
failed | heartbeat -> Failed:
passive | heartbeat from elsewhere -> Passive:
fast, address unknown | heartbeat from elsewhere -> Fast: PathChanged Heartbeat ConnectionEstablished
fast | heartbeat from elsewhere -> Fast: PathChanged Moved ConnectionEstablished
established | heartbeat from elsewhere -> Established: PathChanged Moved
failed | heartbeat from elsewhere -> Failed:
passive | heartbeat of another connection -> Passive:
fast, address unknown | heartbeat of another connection -> Fast:
fast | heartbeat of another connection -> Fast:
established | heartbeat of another connection -> Established:
failed | heartbeat of another connection -> Failed:
passive | fragmentation test -> Passive:
fast, address unknown | fragmentation test -> Fast: FragmentationReceived
fast | fragmentation test -> Fast: FragmentationReceived
established | fragmentation test -> Established: FragmentationReceived
failed | fragmentation test -> Failed:
passive | mtu test -> Passive:
fast, address unknown | mtu test -> Fast: MtuVerified
fast | mtu test -> Fast: MtuVerified
established | mtu test -> Established: MtuVerified
failed | mtu test -> Failed:
passive | control 1, established -> Passive:
fast, address unknown | control 1, established -> Established: Established FragmentationTest MtuTest
fast | control 1, established -> Established: Established FragmentationTest MtuTest
established | control 1, established -> Established:
failed | control 1, established -> Failed:
passive | control 2, fragments arrive -> Passive: PathChanged
fast, address unknown | control 2, fragments arrive -> Fast: PathChanged
fast | control 2, fragments arrive -> Fast: PathChanged
established | control 2, fragments arrive -> Established: PathChanged
failed | control 2, fragments arrive -> Failed:
passive | control 3, mtu verified -> Passive: PathChanged
fast, address unknown | control 3, mtu verified -> Fast:
fast | control 3, mtu verified -> Fast:
established | control 3, mtu verified -> Established:
failed | control 3, mtu verified -> Failed:
passive | too big -> Passive:
fast, address unknown | too big -> Fast: PathChanged MtuTest
fast | too big -> Fast: PathChanged MtuTest
established | too big -> Established: PathChanged MtuTest
failed | too big -> Failed:
passive | silence -> Passive:
fast, address unknown | silence -> Failed: Failed
fast | silence -> Failed: Failed
established | silence -> Failed: Failed
failed | silence -> Failed:";
