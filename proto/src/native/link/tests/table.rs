//! What a native link does about each input in each of its states.

use super::*;

/// Returns the states by name, each reached in the way that a connection reaches it, of the end
/// that dialled. The other end goes along, since it knows what to say next.
fn states() -> Vec<(&'static str, World)> {
    let passive = || World::new(1);
    let keying = || {
        let mut world = World::new(1);
        world.ends[0].confirm(world.now);
        world.act(0);
        world
    };
    let trying = || {
        let mut world = World::new(1);
        world.blocked = [true; 2];
        world.start();
        world.run(Duration::from_millis(100));
        world
    };
    let established = || World::started(1);
    let on_hold = || {
        let mut world = World::started(1);
        world.blocked = [true; 2];
        world.frames = (1, 100);
        world.run(Duration::from_secs(6));
        world.frames = (0, 0);
        world
    };
    let answered = || {
        let mut world = on_hold();
        world.blocked = [false; 2];
        world.run(Duration::from_millis(1_010));
        world
    };
    let failed = || {
        let mut world = World::new(1);
        world.ends[0].confirm(world.now);
        let mut hello = Hello::parse(&hello(0)).unwrap();
        hello.version = 2;
        let hello = Control::Hello(hello.encode());
        world.ends[0].handle_control(world.now, hello).unwrap();
        world
    };
    vec![
        ("passive", passive()),
        ("keying", keying()),
        ("trying", trying()),
        ("established", established()),
        ("on hold", on_hold()),
        ("on hold, answered", answered()),
        ("failed", failed()),
    ]
}

/// Returns a hello of the other end.
fn hello(epoch: u32) -> Vec<u8> {
    Hello {
        version: VERSION,
        ciphers: Ciphers::ALL,
        epoch,
        session: 5,
        public: [9; 32],
    }
    .encode()
}

fn report(now: Time, answer: Option<Answer>, wants_answer: bool) -> Report {
    Report {
        sent_at: now,
        answer,
        sent: 1,
        received: 1,
        wants_answer,
    }
}

/// Returns an answer to the last report that was sent.
fn answer(world: &World) -> Answer {
    Answer {
        sent_at: world.ends[0].reports.sent_at,
        waited: Duration::ZERO,
        bytes: REPORT_DATAGRAM_BYTES as u32,
    }
}

type Input = (&'static str, fn(&mut World) -> Result<(), ControlError>);

const INPUTS: [Input; 12] = [
    ("confirm", |world| {
        world.ends[0].confirm(world.now);
        Ok(())
    }),
    ("first hello", |world| {
        world.ends[0].handle_control(world.now, Control::Hello(hello(0)))
    }),
    ("hello of the next epoch", |world| {
        world.ends[0].handle_control(world.now, Control::Hello(hello(1)))
    }),
    ("malformed hello", |world| {
        world.ends[0].handle_control(world.now, Control::Hello(vec![1; 9]))
    }),
    ("please rekey, too soon", |world| {
        world.ends[0].handle_control(world.now, Control::RekeyPlease)
    }),
    ("please rekey, later", |world| {
        world.ends[0].handle_control(world.now + KEY_LINGER, Control::RekeyPlease)
    }),
    ("report", |world| {
        world.ends[0].handle_report(world.now, 0, report(world.now, None, false), 100);
        Ok(())
    }),
    ("report that wants an answer", |world| {
        world.ends[0].handle_report(world.now, 0, report(world.now, None, true), 100);
        Ok(())
    }),
    ("report with an answer", |world| {
        let report = report(world.now, Some(answer(world)), false);
        world.ends[0].handle_report(world.now, 0, report, 100);
        Ok(())
    }),
    ("datagram from elsewhere", |world| {
        world.ends[0].handle_moved(world.now, "10.0.0.9:9".parse().unwrap());
        Ok(())
    }),
    ("too big", |world| {
        world.ends[0].handle_too_big(world.now, 1000);
        Ok(())
    }),
    ("silence", |world| {
        world.ends[0].handle_timeout(world.now + Duration::from_secs(3));
        Ok(())
    }),
];

fn name(state: State) -> &'static str {
    match state {
        State::Passive => "passive",
        State::Keying => "keying",
        State::Trying => "trying",
        State::Established { .. } => "established",
        State::OnHold {
            answered_since: None,
        } => "on hold",
        State::OnHold { .. } => "on hold, answered",
        State::Failed => "failed",
    }
}

/// `state | input -> next state: outputs`, or the error.
fn table() -> Vec<String> {
    let mut rows = Vec::new();
    for (input_name, input) in INPUTS {
        for (state, mut world) in states() {
            while world.ends[0].poll_output().is_some() {}
            assert_eq!(name(world.ends[0].state), state);
            let result = input(&mut world);
            let mut outputs = Vec::new();
            while let Some(output) = world.ends[0].poll_output() {
                let text = match output {
                    LinkOutput::Control(Control::Hello(_)) => "Hello".to_owned(),
                    other => format!("{other:?}"),
                };
                let text = text.split(['(', ' ']).next().unwrap().to_owned();
                if outputs.last() != Some(&text) {
                    outputs.push(text);
                }
            }
            let next = name(world.ends[0].state);
            let outputs = match result {
                Ok(()) => outputs.join(" "),
                Err(error) => format!("ignored, {error}"),
            };
            rows.push(format!("{state} | {input_name} -> {next}: {outputs}"));
        }
    }
    rows
}

#[test]
fn every_input_in_every_state() {
    let rows = table();
    let expected: Vec<&str> = EXPECTED.trim().lines().collect();
    assert_eq!(rows.len(), 7 * INPUTS.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.trim_end(), *expected, "all rows:\n{}", rows.join("\n"));
    }
    assert_eq!(expected.len(), rows.len(), "all rows:\n{}", rows.join("\n"));
}

const EXPECTED: &str = "
passive | confirm -> keying: Hello
keying | confirm -> keying:
trying | confirm -> trying:
established | confirm -> established:
on hold | confirm -> on hold:
on hold, answered | confirm -> on hold, answered:
failed | confirm -> failed:
passive | first hello -> passive:
keying | first hello -> trying: KeysChanged PathChanged Report
trying | first hello -> trying: ignored, hello for epoch 0, 1 wanted
established | first hello -> established: ignored, hello for epoch 0, 1 wanted
on hold | first hello -> on hold: ignored, hello for epoch 0, 1 wanted
on hold, answered | first hello -> on hold, answered: ignored, hello for epoch 0, 1 wanted
failed | first hello -> failed:
passive | hello of the next epoch -> passive: ignored, hello for epoch 1, 0 wanted
keying | hello of the next epoch -> keying: ignored, hello for epoch 1, 0 wanted
trying | hello of the next epoch -> trying: ignored, hello for epoch 1, 1 wanted
established | hello of the next epoch -> established: ignored, hello for epoch 1, 1 wanted
on hold | hello of the next epoch -> on hold: ignored, hello for epoch 1, 1 wanted
on hold, answered | hello of the next epoch -> on hold, answered: ignored, hello for epoch 1, 1 wanted
failed | hello of the next epoch -> failed:
passive | malformed hello -> passive: ignored, malformed hello of 9 bytes
keying | malformed hello -> keying: ignored, malformed hello of 9 bytes
trying | malformed hello -> trying: ignored, malformed hello of 9 bytes
established | malformed hello -> established: ignored, malformed hello of 9 bytes
on hold | malformed hello -> on hold: ignored, malformed hello of 9 bytes
on hold, answered | malformed hello -> on hold, answered: ignored, malformed hello of 9 bytes
failed | malformed hello -> failed:
passive | please rekey, too soon -> passive:
keying | please rekey, too soon -> keying:
trying | please rekey, too soon -> trying:
established | please rekey, too soon -> established:
on hold | please rekey, too soon -> on hold:
on hold, answered | please rekey, too soon -> on hold, answered:
failed | please rekey, too soon -> failed:
passive | please rekey, later -> passive:
keying | please rekey, later -> keying:
trying | please rekey, later -> trying: NeedSecret
established | please rekey, later -> established: NeedSecret
on hold | please rekey, later -> on hold: NeedSecret
on hold, answered | please rekey, later -> on hold, answered: NeedSecret
failed | please rekey, later -> failed:
passive | report -> passive:
keying | report -> keying:
trying | report -> trying:
established | report -> established:
on hold | report -> on hold:
on hold, answered | report -> on hold, answered:
failed | report -> failed:
passive | report that wants an answer -> passive:
keying | report that wants an answer -> keying:
trying | report that wants an answer -> trying: Report
established | report that wants an answer -> established: Report
on hold | report that wants an answer -> on hold: Report
on hold, answered | report that wants an answer -> on hold, answered: Report
failed | report that wants an answer -> failed:
passive | report with an answer -> passive:
keying | report with an answer -> keying:
trying | report with an answer -> trying: Report
established | report with an answer -> established:
on hold | report with an answer -> on hold, answered: Report
on hold, answered | report with an answer -> on hold, answered:
failed | report with an answer -> failed:
passive | datagram from elsewhere -> passive:
keying | datagram from elsewhere -> keying: PathChanged Moved
trying | datagram from elsewhere -> trying: PathChanged Moved Report
established | datagram from elsewhere -> established: PathChanged Moved Report
on hold | datagram from elsewhere -> on hold: PathChanged Moved Report
on hold, answered | datagram from elsewhere -> on hold, answered: PathChanged Moved Report
failed | datagram from elsewhere -> failed:
passive | too big -> passive:
keying | too big -> keying:
trying | too big -> trying:
established | too big -> established: PathChanged Report
on hold | too big -> on hold: PathChanged Report
on hold, answered | too big -> on hold, answered: PathChanged Report
failed | too big -> failed:
passive | silence -> passive:
keying | silence -> keying: PathChanged
trying | silence -> trying: Report
established | silence -> established:
on hold | silence -> on hold: Report
on hold, answered | silence -> established: Report Established Report
failed | silence -> failed:";
