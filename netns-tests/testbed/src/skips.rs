//! What tests could not do on this machine, collected over one `cargo test`.
//!
//! A test that lacks something (root, another program) says so by [`skip`] and returns. All test
//! programs of one `cargo test` are children of the same process; by its id they find the file
//! that they share. The last of them, the test `summary` of this package, prints what is in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::parent_id;
use std::path::PathBuf;

/// Notes that a test did not run, and says so where it is seen: the test harness shows what is
/// printed only for tests that fail, but not what is written to standard error directly.
pub fn skip(test: &str, needs: &str) {
    let line = format!("SKIPPED {test}: needs {needs}\n");
    // A line that cannot be written must not fail a test.
    let _ = io::stderr().write_all(line.as_bytes());
    let _ = note(test, needs);
}

fn note(test: &str, needs: &str) -> io::Result<()> {
    let Some(folder) = folder() else {
        return Ok(());
    };
    fs::create_dir_all(&folder)?;
    let path = folder.join(run_name(parent_id()));
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // One write, so that lines of tests that run at the same time stay whole.
    file.write_all(format!("{needs}\t{test}\n").as_bytes())
}

/// Returns what was skipped in this run, by what it needs. Forgets it, and runs that have ended.
pub fn take() -> BTreeMap<String, Vec<String>> {
    let mut skipped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let own = run_name(parent_id());
    let Some(folder) = folder() else {
        return skipped;
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for (needs, test) in text.lines().filter_map(|line| line.split_once('\t')) {
                let tests = skipped.entry(needs.to_owned()).or_default();
                tests.push(test.to_owned());
            }
        } else if is_alive(&name) {
            continue;
        }
        // One that stays is looked at again by the next run.
        let _ = fs::remove_file(entry.path());
    }
    for tests in skipped.values_mut() {
        tests.sort();
        tests.dedup();
    }
    skipped
}

/// Returns a folder beside the test programs, which stand in `target/PROFILE/deps`.
fn folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.join("skipped"))
}

/// Returns the id of the process that runs all tests, and when it started: ids are given again.
fn run_name(pid: u32) -> String {
    format!("{pid}-{}", start_time(pid).unwrap_or(0))
}

fn is_alive(run: &str) -> bool {
    let pid = run.split_once('-').and_then(|(pid, _)| pid.parse().ok());
    pid.is_some_and(|pid| start_time(pid).is_some() && run_name(pid) == run)
}

/// Returns when a process started, in ticks since the system did: the 22nd field of its stat, which
/// is the 20th behind the command in parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}
