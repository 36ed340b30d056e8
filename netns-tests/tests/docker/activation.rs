//! The plugin's socket opened by somebody else, as systemd does.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use netns_tests::{Kind, Mesh, needs_root, wait};

/// The socket is there before the router, which answers what waits on it.
#[test]
fn a_socket_that_was_opened_before() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    let socket = mesh.folder(0).join("plugins/weft.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    // Docker calls before there is any router.
    let path = socket.clone();
    let early = std::thread::spawn(move || crate::protocol::call(&path, "/Plugin.Activate", ""));
    let script = format!(
        "exec 3<&{0} {0}<&-; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; \
         exec \"$0\" launch --no-dns --docker-api= --db-prefix=\"$1\" --weft-plugin-socket=\"$2\"",
        listener.as_raw_fd()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(netns_tests::weft());
    command.arg(mesh.folder(0).join("")).arg(&socket);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut router = mesh.lab.spawn(0, &mut command).unwrap();
    drop(listener);
    let (status, body) = early.join().unwrap();
    assert_eq!(
        (status, body.as_str()),
        (200, "{\"Implements\":[\"NetworkDriver\",\"IpamDriver\"]}\n")
    );
    wait::until_true("the router answers", wait::SOON, || {
        mesh.get(0, "/status").is_some()
    });
    assert!(router.try_wait().unwrap().is_none());
}
