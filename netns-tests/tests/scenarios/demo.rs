//! `weft demo`, run as a user does.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use netns_tests::{needs_root, wait};
use rustix::process::{Pid, Signal};
use serde_json::Value;

/// What one demonstration leaves behind the next one removes, so they go one at a time here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns the command, where no other program can be found.
fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(netns_tests::weft());
    command.arg("demo").args(arguments).env_clear();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Routers that a demonstration started: their parent is it, or the one who takes up orphans.
fn routers_of(folder: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let mine = |command: &Vec<u8>| String::from_utf8_lossy(command).contains(folder);
    commands.filter(mine).count()
}

fn folder_of(pid: u32) -> Option<String> {
    let entries = std::fs::read_dir(lab::host::FOLDER).ok()?.flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find(|name| name.starts_with(&format!("{pid}-")))
}

/// Starts a demonstration and waits until it measures.
fn start() -> (Child, String) {
    let mut child = demo(&["-n", "2"]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("pings")),
        "the mesh is not complete"
    );
    // Who closes the pipe would not be told more; that must not end the demonstration.
    let folder = folder_of(child.id()).expect("a folder");
    assert_eq!(routers_of(&folder), 2);
    (child, folder)
}

#[test]
fn measures_a_mesh_and_leaves_nothing() {
    needs_root!();
    let _alone = ONE_AT_A_TIME.lock();
    for arguments in [
        &["--json"][..],
        &["--json", "-n", "4", "--password", "a secret"],
    ] {
        let child = demo(arguments).spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["ok"], true);
        let hosts = found["hosts"].as_array().unwrap().len();
        assert_eq!(hosts, if arguments.len() == 1 { 3 } else { 4 });
        let pings = found["pings"].as_array().unwrap();
        assert_eq!(pings.len(), hosts * (hosts - 1));
        assert!(
            pings
                .iter()
                .all(|ping| ping["best_ms"].as_f64().unwrap() > 0.0)
        );
        let streams = found["streams"].as_array().unwrap();
        assert!(!streams.is_empty());
        assert!(
            streams
                .iter()
                .all(|s| s["bits_per_second"].as_f64().unwrap() > 1e6)
        );
        let moved = &found["moved"];
        assert_eq!(moved["before"], moved["after"]);
        assert!(moved["answered_ms"].as_f64().unwrap() < 2000.0, "{moved}");
        println!("{moved}");
        assert_eq!(folder_of(pid), None);
    }
}

#[test]
fn shows_what_it_does() {
    needs_root!();
    let _alone = ONE_AT_A_TIME.lock();
    let output = demo(&["-n", "2", "--password", "a secret"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "host1# weft launch --password PASSWORD\n",
        "host2# weft launch --password PASSWORD 172.30.0.1\n",
        "host1# weft attach 10.7.1.1/16 c1\n",
        "host1 <-> host2 connected, encrypted",
        "the mesh is complete",
        "2 of 2 pairs of containers reach each other",
        "c1 -> c2",
        "host1# weft attach --identity web web\n",
        "host1 -> host2, answers c1 again after",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours but on a terminal");
    assert!(!text.contains("a secret"));
}

#[test]
fn removes_everything_when_it_is_ended() {
    needs_root!();
    let _alone = ONE_AT_A_TIME.lock();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut child, folder) = start();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = wait::until("it ends", wait::SOON, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1));
        assert_eq!(routers_of(&folder), 0);
        assert!(
            !std::path::Path::new(lab::host::FOLDER)
                .join(folder)
                .exists()
        );
    }
}

#[test]
fn the_next_one_removes_what_a_killed_one_left() {
    needs_root!();
    let _alone = ONE_AT_A_TIME.lock();
    let (mut child, folder) = start();
    child.kill().unwrap();
    child.wait().unwrap();
    let output = demo(&["-n", "2", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(routers_of(&folder), 0);
    assert!(
        !std::path::Path::new(lab::host::FOLDER)
            .join(folder)
            .exists()
    );
}
