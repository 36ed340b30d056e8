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

/// Runs a seed that failed again, and tells how it came to that.
fn trace(plan: Plan) -> String {
    let mut world = World::new(plan.clone(), true);
    let result = world.run();
    let shown = number("WEFT_SIM_LINES").unwrap_or(200) as usize;
    let skip = world.watch.trace.len().saturating_sub(shown);
    let lines: Vec<String> = world.watch.trace.into_iter().skip(skip).collect();
    format!(
        "{}\n{plan:?}\nseed {} (WEFT_SIM_SEED={}): {:?}",
        lines.join("\n"),
        plan.seed,
        plan.seed,
        result.err()
    )
}

fn run_seeds(count: u64, plan: fn(u64) -> Plan) {
    if let Some(seed) = number("WEFT_SIM_SEED") {
        println!("{}", trace(plan(seed)));
        return;
    }
    let count = number("WEFT_SIM_SEEDS").unwrap_or(count);
    let first = number("WEFT_SIM_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let failed = std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return None;
                }
                if let Err(error) = run(plan(seed)) {
                    next.store(first + count, Ordering::Relaxed);
                    return Some((seed, error));
                }
            }
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        let results: Vec<_> = threads
            .into_iter()
            .filter_map(|t| t.join().unwrap())
            .collect();
        results.into_iter().min()
    });
    if let Some((seed, error)) = failed {
        panic!("{}\nseed {seed}: {error}", trace(plan(seed)));
    }
}

#[test]
fn small_meshes_keep_every_promise() {
    run_seeds(2000, Plan::random);
}

#[test]
fn large_meshes_keep_every_promise() {
    run_seeds(20, Plan::large);
}
