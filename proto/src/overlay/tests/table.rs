//! What the switch of a connection does about each input in each of its states.

use super::*;
use crate::message::Message;
use crate::native::link::REPORT_REST;
use crate::native::report::Answer;

const START: Time = Time::from_micros(1_000_000);
const WEFT: LinkId = LinkId(1);
const SLEEVE: LinkId = LinkId(2);

/// Two switches and what is on the way between them, which is nothing.
struct Pair {
    now: Time,
    ends: [OverlaySwitch; 2],
    /// Whether datagrams of each overlay arrive.
    passes: fn(Overlay) -> bool,
}

impl Pair {
    fn new() -> Pair {
        let end = |dialled| {
            let theirs = ["weft".to_owned(), "sleeve".to_owned()];
            let mut next = 0;
            OverlaySwitch::prepare(&Overlay::ALL, Some(&theirs), params(dialled), || {
                next += 1;
                LinkId(next)
            })
            .unwrap()
        };
        Pair {
            now: START,
            ends: [end(true), end(false)],
            passes: |_| true,
        }
    }

    fn confirmed(passes: fn(Overlay) -> bool) -> Pair {
        let mut pair = Pair::new();
        pair.passes = passes;
        for end in &mut pair.ends {
            end.confirm(START);
        }
        pair.exchange();
        pair
    }

    fn exchange(&mut self) {
        for end in [0, 1, 0, 1, 0, 1, 0, 1] {
            while let Some(output) = self.ends[end].poll_output() {
                self.deliver(end, output);
            }
        }
    }

    fn deliver(&mut self, from: usize, output: SwitchOutput) {
        let now = self.now;
        let address = "10.0.0.2:6783".parse().unwrap();
        let mode = self.ends[from].mode();
        let to = &mut self.ends[1 - from];
        match output {
            SwitchOutput::Message(bytes) => {
                let Ok(Message::Overlay { index, tag, body }) = Message::decode(&bytes, mode)
                else {
                    panic!("{bytes:?}");
                };
                let _ = to.handle_control(now, index.get().into(), tag, body);
            }
            SwitchOutput::Link(LinkOutput { what, .. }) => match what {
                LinkAction::Special(special) if (self.passes)(Overlay::Sleeve) => {
                    to.handle_special(now, SLEEVE, address, special);
                }
                LinkAction::Report(report, bytes) if (self.passes)(Overlay::Weft) => {
                    to.handle_moved(now, WEFT, address);
                    to.handle_report(now, WEFT, 0, report, bytes);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let next = self.ends.iter().filter_map(OverlaySwitch::poll_timeout);
            self.now = next.min().unwrap_or(until).max(self.now).min(until);
            for end in &mut self.ends {
                end.handle_timeout(self.now);
            }
            self.exchange();
        }
    }
}

/// Returns the states by name, as healths of the native and the sleeve link of the end that
/// dialled.
fn states() -> Vec<(&'static str, Pair)> {
    let run = |passes, time| {
        let mut pair = Pair::confirmed(passes);
        pair.run(time);
        pair
    };
    let second = Duration::from_secs(1);
    let on_hold = || {
        let mut pair = run(|_| true, second);
        pair.passes = |overlay| overlay == Overlay::Sleeve;
        // No frames travel, so that it takes a while to be noticed.
        pair.run(REPORT_REST * 2);
        pair
    };
    let weft_failed = || {
        let mut pair = run(|overlay| overlay == Overlay::Sleeve, second);
        let hello = [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].to_vec();
        let hello = [hello, vec![7; 32]].concat();
        let mut fresh = Pair::new();
        fresh.passes = pair.passes;
        fresh.ends[0].confirm(START);
        fresh.ends[1].confirm(START);
        fresh.ends[0].handle_control(START, 0, 1, &hello).unwrap();
        fresh.exchange();
        fresh.run(second);
        pair = fresh;
        pair
    };
    let broken = || {
        let mut pair = run(|_| false, second);
        pair.run(second * 70);
        pair
    };
    vec![
        ("not confirmed", Pair::new()),
        ("pending, pending", run(|_| false, second)),
        (
            "pending, established",
            run(|o| o == Overlay::Sleeve, second),
        ),
        ("established, pending", run(|o| o == Overlay::Weft, second)),
        ("established, established", run(|_| true, second)),
        ("on hold, established", on_hold()),
        ("failed, established", weft_failed()),
        ("broken", broken()),
    ]
}

type Input = (
    &'static str,
    fn(&mut OverlaySwitch, Time) -> Result<(), ControlRejected>,
);

fn report(now: Time, answer: Option<Answer>) -> Report {
    Report {
        sent_at: now,
        answer,
        sent: 1,
        received: 1,
        wants_answer: answer.is_none(),
    }
}

const INPUTS: [Input; 12] = [
    ("confirm", |switch, now| {
        switch.confirm(now);
        Ok(())
    }),
    ("native control, unknown", |switch, now| {
        switch.handle_control(now, 0, 9, &[])
    }),
    ("native control, please rekey", |switch, now| {
        switch.handle_control(now, 0, 2, &[])
    }),
    ("sleeve control 1", |switch, now| {
        switch.handle_control(now, 1, 1, &[])
    }),
    ("sleeve control, unknown", |switch, now| {
        switch.handle_control(now, 1, 9, &[])
    }),
    ("control without a place", |switch, now| {
        switch.handle_control(now, 2, 1, &[])
    }),
    ("heartbeat", |switch, now| {
        let from = "10.0.0.2:6783".parse().unwrap();
        switch.handle_special(now, SLEEVE, from, Special::Heartbeat(ConnUid(7)));
        Ok(())
    }),
    ("heartbeat on the native link", |switch, now| {
        let from = "10.0.0.2:6783".parse().unwrap();
        switch.handle_special(now, WEFT, from, Special::Heartbeat(ConnUid(7)));
        Ok(())
    }),
    ("report", |switch, now| {
        switch.handle_report(now, WEFT, 0, report(now, None), 100);
        Ok(())
    }),
    ("report on the sleeve link", |switch, now| {
        switch.handle_report(now, SLEEVE, 0, report(now, None), 100);
        Ok(())
    }),
    ("too big on both", |switch, now| {
        switch.handle_too_big(now, WEFT, 1000);
        switch.handle_too_big(now, SLEEVE, 1000);
        Ok(())
    }),
    ("61 s of silence", |switch, now| {
        switch.handle_timeout(now + Duration::from_secs(61));
        switch.handle_timeout(now + Duration::from_secs(61));
        Ok(())
    }),
];

/// `state | input -> healths, order: outputs`, or the error.
fn table() -> Vec<String> {
    let mut rows = Vec::new();
    for (name, input) in INPUTS {
        for (state, mut pair) in states() {
            let switch = &mut pair.ends[0];
            drain(switch);
            let result = input(switch, pair.now);
            let mut outputs: Vec<String> = Vec::new();
            for output in drain(switch) {
                let text = match output {
                    SwitchOutput::Link(LinkOutput { what, .. }) => format!("{what:?}"),
                    other => format!("{other:?}"),
                };
                let text = text.split(['(', ' ']).next().unwrap().to_owned();
                if outputs.last() != Some(&text) {
                    outputs.push(text);
                }
            }
            let healths = switch.forwarders().map(|view| match view.health {
                Health::Pending => "pending",
                Health::Established => "established",
                Health::OnHold(_) => "on hold",
                Health::Failed(_) => "failed",
            });
            let healths = healths.collect::<Vec<_>>().join(", ");
            let order: Vec<u64> = switch.order.iter().map(|link| link.0).collect();
            let outputs = match result {
                Ok(()) => outputs.join(" "),
                Err(error) => format!("ignored, {error}"),
            };
            rows.push(format!(
                "{state} | {name} -> {healths}, {order:?}: {outputs}"
            ));
        }
    }
    rows
}

#[test]
fn every_input_in_every_state() {
    let rows = table();
    let expected: Vec<&str> = EXPECTED.trim().lines().collect();
    assert_eq!(rows.len(), 8 * INPUTS.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.trim_end(), *expected, "all rows:\n{}", rows.join("\n"));
    }
    assert_eq!(expected.len(), rows.len(), "all rows:\n{}", rows.join("\n"));
}

const EXPECTED: &str = "
not confirmed | confirm -> pending, pending, [1, 2]: Message Path Special Order
pending, pending | confirm -> pending, pending, [1, 2]:
pending, established | confirm -> pending, established, [2, 1]:
established, pending | confirm -> established, pending, [1, 2]:
established, established | confirm -> established, established, [1, 2]:
on hold, established | confirm -> on hold, established, [2, 1]:
failed, established | confirm -> failed, established, [2]:
broken | confirm -> pending, failed, [1]:
not confirmed | native control, unknown -> pending, pending, []: ignored, unknown control message 9 of the native overlay
pending, pending | native control, unknown -> pending, pending, [1, 2]: ignored, unknown control message 9 of the native overlay
pending, established | native control, unknown -> pending, established, [2, 1]: ignored, unknown control message 9 of the native overlay
established, pending | native control, unknown -> established, pending, [1, 2]: ignored, unknown control message 9 of the native overlay
established, established | native control, unknown -> established, established, [1, 2]: ignored, unknown control message 9 of the native overlay
on hold, established | native control, unknown -> on hold, established, [2, 1]: ignored, unknown control message 9 of the native overlay
failed, established | native control, unknown -> failed, established, [2]:
broken | native control, unknown -> pending, failed, [1]: ignored, unknown control message 9 of the native overlay
not confirmed | native control, please rekey -> pending, pending, []:
pending, pending | native control, please rekey -> pending, pending, [1, 2]:
pending, established | native control, please rekey -> pending, established, [2, 1]:
established, pending | native control, please rekey -> established, pending, [1, 2]:
established, established | native control, please rekey -> established, established, [1, 2]:
on hold, established | native control, please rekey -> on hold, established, [2, 1]: NeedSecret
failed, established | native control, please rekey -> failed, established, [2]:
broken | native control, please rekey -> pending, failed, [1]: NeedSecret
not confirmed | sleeve control 1 -> pending, pending, []:
pending, pending | sleeve control 1 -> pending, established, [2, 1]: Special Order Established
pending, established | sleeve control 1 -> pending, established, [2, 1]:
established, pending | sleeve control 1 -> established, established, [1, 2]: Special
established, established | sleeve control 1 -> established, established, [1, 2]:
on hold, established | sleeve control 1 -> on hold, established, [2, 1]:
failed, established | sleeve control 1 -> failed, established, [2]:
broken | sleeve control 1 -> pending, failed, [1]:
not confirmed | sleeve control, unknown -> pending, pending, []: ignored, unknown sleeve control message 9
pending, pending | sleeve control, unknown -> pending, pending, [1, 2]: ignored, unknown sleeve control message 9
pending, established | sleeve control, unknown -> pending, established, [2, 1]: ignored, unknown sleeve control message 9
established, pending | sleeve control, unknown -> established, pending, [1, 2]: ignored, unknown sleeve control message 9
established, established | sleeve control, unknown -> established, established, [1, 2]: ignored, unknown sleeve control message 9
on hold, established | sleeve control, unknown -> on hold, established, [2, 1]: ignored, unknown sleeve control message 9
failed, established | sleeve control, unknown -> failed, established, [2]: ignored, unknown sleeve control message 9
broken | sleeve control, unknown -> pending, failed, [1]:
not confirmed | control without a place -> pending, pending, []: ignored, no forwarder in place 2
pending, pending | control without a place -> pending, pending, [1, 2]: ignored, no forwarder in place 2
pending, established | control without a place -> pending, established, [2, 1]: ignored, no forwarder in place 2
established, pending | control without a place -> established, pending, [1, 2]: ignored, no forwarder in place 2
established, established | control without a place -> established, established, [1, 2]: ignored, no forwarder in place 2
on hold, established | control without a place -> on hold, established, [2, 1]: ignored, no forwarder in place 2
failed, established | control without a place -> failed, established, [2]: ignored, no forwarder in place 2
broken | control without a place -> pending, failed, [1]: ignored, no forwarder in place 2
not confirmed | heartbeat -> pending, pending, []:
pending, pending | heartbeat -> pending, pending, [1, 2]: Message
pending, established | heartbeat -> pending, established, [2, 1]:
established, pending | heartbeat -> established, pending, [1, 2]: Message
established, established | heartbeat -> established, established, [1, 2]:
on hold, established | heartbeat -> on hold, established, [2, 1]:
failed, established | heartbeat -> failed, established, [2]:
broken | heartbeat -> pending, failed, [1]:
not confirmed | heartbeat on the native link -> pending, pending, []:
pending, pending | heartbeat on the native link -> pending, pending, [1, 2]:
pending, established | heartbeat on the native link -> pending, established, [2, 1]:
established, pending | heartbeat on the native link -> established, pending, [1, 2]:
established, established | heartbeat on the native link -> established, established, [1, 2]:
on hold, established | heartbeat on the native link -> on hold, established, [2, 1]:
failed, established | heartbeat on the native link -> failed, established, [2]:
broken | heartbeat on the native link -> pending, failed, [1]:
not confirmed | report -> pending, pending, []:
pending, pending | report -> pending, pending, [1, 2]: Report
pending, established | report -> pending, established, [2, 1]: Report
established, pending | report -> established, pending, [1, 2]: Report
established, established | report -> established, established, [1, 2]: Report
on hold, established | report -> on hold, established, [2, 1]: Report
failed, established | report -> failed, established, [2]:
broken | report -> pending, failed, [1]: Report
not confirmed | report on the sleeve link -> pending, pending, []:
pending, pending | report on the sleeve link -> pending, pending, [1, 2]:
pending, established | report on the sleeve link -> pending, established, [2, 1]:
established, pending | report on the sleeve link -> established, pending, [1, 2]:
established, established | report on the sleeve link -> established, established, [1, 2]:
on hold, established | report on the sleeve link -> on hold, established, [2, 1]:
failed, established | report on the sleeve link -> failed, established, [2]:
broken | report on the sleeve link -> pending, failed, [1]:
not confirmed | too big on both -> pending, pending, []:
pending, pending | too big on both -> pending, pending, [1, 2]: Path Special
pending, established | too big on both -> pending, established, [2, 1]: Path Special
established, pending | too big on both -> established, pending, [1, 2]: Path Report Path Special
established, established | too big on both -> established, established, [1, 2]: Path Report Path Special
on hold, established | too big on both -> on hold, established, [2, 1]: Path Report Path Special
failed, established | too big on both -> failed, established, [2]: Path Special
broken | too big on both -> pending, failed, [1]:
not confirmed | 61 s of silence -> pending, pending, []:
pending, pending | 61 s of silence -> pending, failed, [1]: Report LinkFailed Order Broken
pending, established | 61 s of silence -> pending, failed, [1]: Report LinkFailed Order Broken
established, pending | 61 s of silence -> established, failed, [1]: Report LinkFailed Order
established, established | 61 s of silence -> established, failed, [1]: Report LinkFailed Order
on hold, established | 61 s of silence -> on hold, failed, [1]: Report LinkFailed Order Broken
failed, established | 61 s of silence -> failed, failed, []: LinkFailed Order Broken
broken | 61 s of silence -> pending, failed, [1]: Report
";
