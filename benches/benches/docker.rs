//! What our plugin adds to the start of a container, and to connecting one that runs, with ten in
//! parallel: a real engine (`dockerd`, or `WEFT_DOCKERD`), a real router. Needs root.
//!
//! ```text
//! cargo bench -p benches --bench docker -- [--rounds N]
//! ```
//!
//! In each round 100 containers are started, ten at a time, and ten that run are connected and
//! disconnected ten times. The router itself says what its calls took, from their arrival to
//! their answer, without Docker's own list and the kernel's work for interfaces. It keeps its
//! records in memory, so that no disk is waited for; all else that the store does is counted.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints what it measured"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use benches::{median, program};
use netns_tests::machine::{IMAGE, has_docker};
use netns_tests::{Kind, Machine, Mesh, wait};
use testbed::rig::TrialError;

/// How many at a time, and how many times in a round; the router's figures are of the latest
/// hundred calls.
const PARALLEL: usize = 10;
const TIMES: usize = 10;
/// How long the engine may take for one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// At most so much may be ours.
const OVERHEAD_MS_MAX: f64 = 20.0;

fn main() -> ExitCode {
    program::router_or("docker", measure)
}

fn measure() -> Result<(), TrialError> {
    if !has_docker() {
        return Ok(());
    }
    let rounds = program::number_after("--rounds", 3)?;
    let mesh = Mesh::new(&[Kind::Weft]);
    let mut machine = Machine::new(&mesh, 0);
    machine.start_engine(&mesh);
    machine.import_image();
    machine.keep_records_in_memory();
    machine.start_router(&mesh, &["--ipalloc-init=consensus=1"]);
    wait::until_true("there is the network", wait::LATER, || {
        machine
            .docker(&["network", "inspect", "weft"])
            .status
            .success()
    });
    println!(
        "engine {}",
        machine
            .docker(&["version", "--format={{.Server.Version}}"])
            .ok()
            .trim()
    );
    let names: Vec<String> = (0..PARALLEL).map(|n| format!("bench-{n}")).collect();
    for name in &names {
        let create = [
            "create",
            "--network=weft",
            "--name",
            name,
            IMAGE,
            "sleep",
            "10000",
        ];
        machine.docker(&create).ok();
    }
    let socket = machine.socket();
    let [mut starts, mut connects] = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        for _ in 0..TIMES {
            all(&socket, &names, |name| {
                (format!("/containers/{name}/start"), String::new())
            })?;
            all(&socket, &names, |name| {
                (format!("/containers/{name}/stop?t=0"), String::new())
            })?;
        }
        starts.push(Sample::take(&mesh, round, "starts")?);
        all(&socket, &names, |name| {
            (format!("/containers/{name}/start"), String::new())
        })?;
        for _ in 0..TIMES {
            for verb in ["disconnect", "connect"] {
                all(&socket, &names, |name| {
                    let body = format!("{{\"Container\":\"{name}\"}}");
                    (format!("/networks/weft/{verb}"), body)
                })?;
            }
        }
        connects.push(Sample::take(&mesh, round, "connects")?);
        all(&socket, &names, |name| {
            (format!("/containers/{name}/stop?t=0"), String::new())
        })?;
    }
    println!("| {PARALLEL} at once | overhead p50 ms | p99 ms | whole calls p50 ms | p99 ms |");
    println!("|---|---|---|---|---|");
    let p99 = [print("start", &starts), print("connect", &connects)];
    if p99.iter().any(|p99| *p99 > OVERHEAD_MS_MAX) {
        return Err(format!("more than {OVERHEAD_MS_MAX} ms at p99").into());
    }
    Ok(())
}

/// What the plugin's two calls for each container took, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    overhead: [f64; 2],
    total: [f64; 2],
}

impl Sample {
    fn take(mesh: &Mesh, round: u64, what: &str) -> Result<Sample, TrialError> {
        let status = mesh
            .get_json(0, "/status/weft")
            .ok_or("the router does not answer")?;
        let mut sample = Sample::default();
        for call in ["CreateEndpoint", "Join"] {
            let facts = &status["docker"][call];
            eprintln!("round {round}, {what}, {call}: {facts}");
            if facts["count"].as_u64() < Some((PARALLEL * TIMES) as u64) {
                return Err(format!("too few calls of {call}").into());
            }
            let add = |sum: &mut [f64; 2], part: &str| {
                for (sum, figure) in sum.iter_mut().zip(["p50_us", "p99_us"]) {
                    *sum += facts[part][figure].as_f64().unwrap_or(f64::NAN) / 1e3;
                }
            };
            // That of a sum is at most the sum of both.
            add(&mut sample.overhead, "overhead");
            add(&mut sample.total, "total");
        }
        Ok(sample)
    }
}

/// Prints the medians of all rounds, and returns that of the overhead at p99.
fn print(what: &str, samples: &[Sample]) -> f64 {
    let figure = |value: fn(&Sample) -> f64| {
        let (middle, low, high) = median(samples.iter().map(value));
        (middle, format!("{middle:.1} ({low:.1}-{high:.1})"))
    };
    let (p99, overhead) = figure(|sample| sample.overhead[1]);
    println!(
        "| {what} | {} | {overhead} | {} | {} |",
        figure(|sample| sample.overhead[0]).1,
        figure(|sample| sample.total[0]).1,
        figure(|sample| sample.total[1]).1,
    );
    p99
}

/// Has the engine do something with all containers at once.
fn all(
    socket: &Path,
    names: &[String],
    request: impl Fn(&str) -> (String, String) + Sync,
) -> Result<(), TrialError> {
    std::thread::scope(|scope| {
        let begin = |name: &String| {
            let (request, name) = (&request, name.clone());
            scope.spawn(move || {
                let (path, body) = request(&name);
                post(socket, &path, &body)
            })
        };
        let calls: Vec<_> = names.iter().map(begin).collect();
        for call in calls {
            call.join().map_err(|_| "a call panicked")??;
        }
        Ok(())
    })
}

fn post(socket: &Path, path: &str, body: &str) -> Result<(), TrialError> {
    let begun = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(CALL_TIME_MAX))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(());
    }
    Err(format!("{path} after {:?}: {answer}", begun.elapsed()).into())
}
