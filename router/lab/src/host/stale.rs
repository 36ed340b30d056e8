//! Cleaning up after a lab whose process was killed: its processes and its folder.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use kernel::error::NetError;

/// Ends the processes and removes the folders, below `folder`, of labs whose own process is gone.
/// Returns how many labs that were.
pub fn remove_stale(folder: &Path) -> Result<usize, NetError> {
    let mut stale: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_stale(&name) {
            stale.push(name);
        }
    }
    for name in processes().into_iter().map(|(_, lab)| lab) {
        if is_stale(&name) && !stale.contains(&name) {
            stale.push(name);
        }
    }
    for name in &stale {
        end_processes(name);
        let path = folder.join(name);
        if path.exists() {
            let at = |e| NetError::io(format!("remove {}", path.display()), &e);
            fs::remove_dir_all(&path).map_err(at)?;
        }
    }
    Ok(stale.len())
}

/// Returns the name of a lab of this process: its id, when it started (ids are given again), a
/// count.
pub(super) fn lab_name(pid: u32, count: u32) -> Result<String, NetError> {
    let start = start_time(pid).ok_or_else(|| NetError::Malformed {
        what: "read the start time of this process".into(),
    })?;
    Ok(format!("{pid}-{start}-{count}"))
}

fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start)), Some(Ok(_)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    u32::try_from(pid).is_ok_and(|pid| start_time(pid) != Some(start))
}

/// Kills all processes of a lab and waits until they are gone, so that their namespaces are too.
pub(super) fn end_processes(lab: &str) {
    let deadline = Instant::now() + END_WAIT_MAX;
    // A process that is just being replaced by another program has no environment for a moment.
    let mut empty_looks = 0;
    while empty_looks < 2 && Instant::now() < deadline {
        let mut all = processes();
        all.retain(|(_, of)| of == lab);
        empty_looks = if all.is_empty() { empty_looks + 1 } else { 0 };
        for (pid, _) in all {
            kill(pid, lab);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills a process if it still is one of that lab: the descriptor keeps the id from being given
/// to another between the look and the kill.
fn kill(pid: u32, lab: &str) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if lab_of(pid.as_raw_nonzero().get().cast_unsigned()).as_deref() == Some(lab) {
        let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
    }
}

/// Returns the processes that carry the name of a lab, except those that have ended and wait for
/// their parent: they have no environment any more.
fn processes() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(lab) = lab_of(pid) {
            found.push((pid, lab));
        }
    }
    found
}

fn lab_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{ENVIRONMENT}=");
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Returns when a process started, in clock ticks since the system did: the 22nd field of its stat,
/// which is the 20th behind the command in parentheses. None if it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The variable in the environment of the processes of a lab that holds the lab's name.
pub(super) const ENVIRONMENT: &str = "WEFT_LAB";
/// Maximum time for killed processes to end.
const END_WAIT_MAX: Duration = Duration::from_secs(5);
