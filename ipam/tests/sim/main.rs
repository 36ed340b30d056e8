//! Whole meshes of allocators in one process, with every fault that a network, a disk and an
//! operator have to offer, checked after every step.
//!
//! A run is its seed: the same seed does the same, step by step. `WEFT_SIM_SEEDS=n` runs n seeds
//! of each kind, `WEFT_SIM_FIRST=k` starts at seed k, and `WEFT_SIM_SEED=k` runs one seed and
//! prints the last `WEFT_SIM_LINES=l` lines of its trace. `WEFT_SIM_PEERS=n` is the size of the
//! mesh whose traffic and memory are measured.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods
)]

mod big;
mod checks;
mod digest;
mod drive;
mod faults;
mod host;
mod misuse;
mod network;
mod plan;
mod planted;
mod scene;
mod stick;
mod users;
mod weave;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use plan::Plan;
use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(plan: Plan) -> Result<World, String> {
    let mut world = World::new(plan, false);
    world.run().map(|()| world)
}

/// Runs one seed, and tells how it came to its end: an error if it failed.
fn trace(plan: Plan) -> Result<String, String> {
    let mut world = World::new(plan.clone(), true);
    let result = world.run();
    let shown = number("WEFT_SIM_LINES").unwrap_or(200) as usize;
    let skip = world.watch.trace.len().saturating_sub(shown);
    let lines: Vec<String> = world.watch.trace.into_iter().skip(skip).collect();
    let text = format!(
        "{}\n{plan:?}\nseed {} (WEFT_SIM_SEED={}): {result:?}",
        lines.join("\n"),
        plan.seed,
        plan.seed,
    );
    match result {
        Ok(()) => Ok(text),
        Err(_) => Err(text),
    }
}

/// Tells of a run that failed, if it fails again as it must.
fn told(plan: Plan) -> String {
    trace(plan).unwrap_or_else(|text| text)
}

/// What runs did, summed up.
#[derive(Default)]
struct Totals {
    started: u64,
    kept: u64,
    moved: u64,
    steps: u64,
    messages: u64,
}

impl Totals {
    fn add(&mut self, world: &World) {
        self.started += world.watch.started;
        self.kept += world.watch.kept;
        self.moved += world.watch.moved;
        self.steps += world.steps;
        self.messages += world.messages;
    }
}

/// Runs seeds as long as there are any, or one fails.
fn run_some(next: &AtomicU64, end: u64, plan: fn(u64) -> Plan) -> Result<Totals, (u64, String)> {
    let mut totals = Totals::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return Ok(totals);
        }
        match run(plan(seed)) {
            Ok(world) => totals.add(&world),
            Err(error) => {
                next.store(end, Ordering::Relaxed);
                return Err((seed, error));
            }
        }
    }
}

fn run_seeds(count: u64, plan: fn(u64) -> Plan) {
    if let Some(seed) = number("WEFT_SIM_SEED") {
        match trace(plan(seed)) {
            Ok(text) => println!("{text}"),
            Err(text) => panic!("{text}"),
        }
        return;
    }
    let count = number("WEFT_SIM_SEEDS").unwrap_or(count);
    let first = number("WEFT_SIM_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let results: Vec<Result<Totals, (u64, String)>> = std::thread::scope(|scope| {
        let work = || run_some(&next, first + count, plan);
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (mut kept, mut moved) = (0, 0);
    for result in results {
        match result {
            Ok(totals) => {
                println!(
                    "{} containers started; identities kept their address {} times and lost it \
                     {} times, with an excuse; {} steps, {} messages",
                    totals.started, totals.kept, totals.moved, totals.steps, totals.messages
                );
                kept += totals.kept;
                moved += totals.moved;
            }
            Err((seed, error)) => panic!("{}\nseed {seed}: {error}", told(plan(seed))),
        }
    }
    assert!(
        kept > 50 * moved,
        "addresses that stick: {kept}, that do not: {moved}"
    );
}

#[test]
fn small_meshes_keep_every_promise() {
    run_seeds(2000, Plan::random);
}

#[test]
fn large_meshes_keep_every_promise() {
    run_seeds(20, Plan::large);
}

/// One process is killed, at each output in turn that is made while routers start, meet, elect
/// and give out addresses.
#[test]
fn a_crash_at_any_output_breaks_no_promise() {
    let plan = |at: u64| Plan {
        seconds: 15,
        pace: 150_000,
        identities: 3,
        crash_at: Some(at),
        universe: "10.7.0.0/27".parse().unwrap(),
        weave: usize::from(at.is_multiple_of(3)),
        ..Plan::calm(at / 10, 3)
    };
    let mut crashed = 0;
    for at in 1..=number("WEFT_SIM_OUTPUTS").unwrap_or(600) {
        match run(plan(at)) {
            Ok(world) => crashed += u64::from(world.outputs > at),
            Err(error) => panic!("{}\noutput {at}: {error}", told(plan(at))),
        }
    }
    assert!(crashed > 400, "{crashed} crashes");
}
