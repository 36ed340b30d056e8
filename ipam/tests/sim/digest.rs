//! What runs put out, bit for bit: a change of code that is to change nothing changes no digest.
//!
//! `digests.txt` has one line a run. Where a change of behaviour is meant, run the test with
//! `WEFT_SIM_RECORD=1`, which writes the file anew, and say in the commit what changed and why.

use ipam::allocator::{Channel, Output};
use sha2::{Digest as _, Sha256};

use crate::plan::Plan;
use crate::world::World;

/// How many runs are recorded.
const RUNS: u64 = 200;

/// The digest of all outputs of a run, in order, each with its time and its router.
#[derive(Default)]
pub(crate) struct Outputs {
    hash: Sha256,
    count: u64,
}

impl Outputs {
    pub(crate) fn add(&mut self, now: u64, node: usize, output: &Output) {
        self.count += 1;
        self.number(now);
        self.number(node as u64);
        match output {
            Output::Persist(batch) => {
                self.number(batch.id.0);
                for (key, value) in batch.iter() {
                    self.bytes(key);
                    self.number(u64::from(value.is_some()));
                    self.bytes(value.unwrap_or_default());
                }
            }
            Output::Unicast {
                channel,
                to,
                payload,
            } => self.message(*channel, 1, to.as_bytes(), Some(payload)),
            Output::Broadcast { channel, payload } => {
                self.message(*channel, 2, &[], Some(payload));
            }
            Output::Relay {
                channel,
                source,
                payload,
            } => self.message(*channel, 3, source.as_bytes(), payload.as_ref()),
            Output::State { token, payload } => {
                let token = token.to_be_bytes();
                self.message(Channel::Ring, 4, &token, payload.as_ref());
            }
            Output::BroadcastState => self.number(5),
            Output::Reply { .. } | Output::Alarm(_) | Output::Event(_) => {
                self.bytes(format!("{output:?}").as_bytes());
            }
        }
    }

    fn message(&mut self, channel: Channel, kind: u64, to: &[u8], payload: Option<&Vec<u8>>) {
        self.bytes(channel.name().as_bytes());
        self.number(kind);
        self.bytes(to);
        self.number(u64::from(payload.is_some()));
        self.bytes(payload.map_or(&[], Vec::as_slice));
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hash.update(bytes);
    }

    fn text(&self) -> String {
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        let hash: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
        format!("{} {hash}", self.count)
    }
}

/// Each fourth run is one in which a process is killed at a certain output.
fn plan(run: u64) -> Plan {
    let random = Plan::random(100_000 + run);
    match run % 4 {
        0 => Plan {
            crash_at: Some(run * 3),
            crash: 0.0,
            ..random
        },
        _ => random,
    }
}

fn line(run: u64) -> String {
    let mut world = World::new(plan(run), false);
    let result = world.run();
    let outputs = world.digest.text();
    match result {
        Ok(()) => format!("{run} {outputs}"),
        Err(error) => format!("{run} {outputs} {error}"),
    }
}

#[test]
fn outputs_are_what_they_were() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/digests.txt");
    let half = |odd: u64| (0..RUNS).filter(move |run| run % 2 == odd);
    let mut lines: Vec<(u64, String)> = std::thread::scope(|scope| {
        let threads = [0, 1].map(|odd| {
            let work = move || half(odd).map(|run| (run, line(run))).collect::<Vec<_>>();
            scope.spawn(work)
        });
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    lines.sort_unstable();
    let found: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    if std::env::var("WEFT_SIM_RECORD").is_ok() {
        std::fs::write(path, found.join("\n") + "\n").unwrap();
        return;
    }
    let recorded = std::fs::read_to_string(path).unwrap();
    let recorded: Vec<&str> = recorded.lines().collect();
    let differ: Vec<String> = found
        .iter()
        .enumerate()
        .filter(|(at, line)| recorded.get(*at) != Some(&line.as_str()))
        .map(|(at, line)| format!("{line} instead of {:?}", recorded.get(at)))
        .collect();
    assert!(
        differ.is_empty() && found.len() == recorded.len(),
        "{} of {} runs put out something else (run, outputs, digest):\n{}",
        differ.len(),
        found.len(),
        differ.join("\n")
    );
}
