//! The router as a service of the host: what systemd hears, and what is installed.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use netns_tests::{Kind, Launch, Mesh, needs_root, wait};
use rustix::process::{Pid, Signal, kill_process};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// Runs a tool that may not be installed; its absence is told.
fn tool(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            let program = command.get_program().display().to_string();
            testbed::skips::skip(&test, &format!("the program {program}"));
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

#[track_caller]
fn ok(output: &Output) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Readiness comes when the router can be asked, then signs of life, for as long as there is
/// life, then the end.
#[test]
fn systemd_is_told() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    let path = mesh.folder(0).join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = Command::new(netns_tests::weft());
    command.env_clear().env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "200000");
    command
        .arg("launch")
        .arg("--db-prefix")
        .arg(mesh.folder(0).join(""));
    let start = Instant::now();
    let mut router = mesh.lab.spawn(0, &mut command).unwrap();
    let hear = |time: Duration| {
        socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    };
    let first = hear(wait::SOON).unwrap();
    assert!(first.starts_with("READY=1\nSTATUS="), "{first}");
    println!("ready after {:?}", start.elapsed());
    assert!(mesh.get(0, "/status").is_some());
    for _ in 0..3 {
        assert_eq!(hear(wait::SOON).unwrap(), "WATCHDOG=1");
    }
    // One that hangs is not heard of, and one that ends says so.
    let pid = Pid::from_raw(router.id().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    while hear(Duration::from_millis(500)).is_some() {}
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(hear(wait::SOON).unwrap(), "WATCHDOG=1");
    kill_process(pid, Signal::TERM).unwrap();
    let last = wait::until("it says that it stops", wait::SOON, || {
        hear(wait::SOON).filter(|said| said != "WATCHDOG=1")
    });
    assert_eq!(last, "STOPPING=1");
    let ended = wait::until("it ends", wait::SOON, || router.try_wait().unwrap());
    assert!(ended.success());
}

#[test]
fn units_are_sound() {
    let folder = std::env::temp_dir().join(format!("weft-units-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut paths = Vec::new();
    for name in ["weft.service", "weft.socket"] {
        let text = std::fs::read_to_string(packaging().join(name)).unwrap();
        // It checks that programs exist.
        let text = text.replace("/usr/local/bin/weft ", "/bin/true ");
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let mut verify = Command::new("systemd-analyze");
    let verified = tool(verify.args(["verify", "--man=no"]).args(&paths));
    std::fs::remove_dir_all(&folder).unwrap();
    if let Some(output) = verified {
        ok(&output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn the_script_installs_and_uninstalls() {
    let script = packaging().join("install.sh");
    if let Some(output) = tool(Command::new("shellcheck").arg(&script)) {
        assert_eq!(ok(&output), "");
    }
    let root = std::env::temp_dir().join(format!("weft-install-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&script);
        command.arg("--root").arg(&root).args(arguments);
        command.output().unwrap()
    };
    let binary = netns_tests::weft().display().to_string();
    let units = root.join("etc/systemd/system");
    let env = root.join("etc/weft/weft.env");
    for flags in [&["--", "--resume"][..], &[]] {
        ok(&run(&[&["--binary", &binary], flags].concat()));
        let program = root.join("usr/local/bin/weft");
        let version = Command::new(&program).arg("--version").output().unwrap();
        assert!(ok(&version).starts_with("weft "));
        assert!(units.join("weft.service").exists() && units.join("weft.socket").exists());
        assert!(root.join("usr/local/share/man/man1/weft-launch.1").exists());
        // An update keeps the flags.
        let text = std::fs::read_to_string(&env).unwrap();
        assert!(text.contains("WEFT_FLAGS=\"--resume\""), "{text}");
    }
    // What systemd would take apart or replace is refused before anything is written.
    for flag in ["a b", "it's", "\"x", "$HOME", "a\\b", "a\nb"] {
        let refused = run(&["--binary", &binary, "--", flag]);
        assert_eq!(refused.status.code(), Some(1), "{flag:?}");
        let text = std::fs::read_to_string(&env).unwrap();
        assert!(text.contains("WEFT_FLAGS=\"--resume\""), "{text}");
    }
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(
        run(&["--binary", "/nonexistent"])
            .status
            .code()
            .map(|code| code > 1),
        Some(false)
    );
    ok(&run(&["--uninstall"]));
    assert!(env.exists() && !units.join("weft.service").exists());
    assert!(!root.join("usr/local/share/man/man1/weft-launch.1").exists());
    ok(&run(&["--uninstall", "--purge"]));
    assert!(!env.exists());
    std::fs::remove_dir_all(&root).unwrap();
}

/// A router whose log is a pipe that is full and that nobody reads carries frames, answers and
/// ends like any other.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 2]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'\n'; room]).unwrap();
    mesh.log_to(0, File::from(OwnedFd::from(writer)));
    let launch = Launch::new().with("--log-level=debug");
    mesh.launch_all(&[&[], &[0]], &launch);
    mesh.wait_connected(0, 1);
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    a.must_reach(&b);
    let metrics = mesh.get(0, "/metrics").unwrap();
    assert!(
        metrics.contains("weft_log_lines_dropped_total"),
        "{metrics}"
    );
    assert!(mesh.is_connected(0, 1));
    assert!(mesh.terminate(0).success());
    drop(reader);
}
