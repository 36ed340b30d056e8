//! The list that proves `proto` and `ipam` to do no I/O finds what it is there for.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tree::root;

/// A line for each way out of a program.
const PLANTED: &str = r#"
pub fn a() -> std::io::Result<Vec<u8>> { std::fs::read("a") }
pub fn b(file: std::fs::File) -> u64 { file.metadata().map_or(0, |data| data.len()) }
pub fn c() { drop(std::net::UdpSocket::bind("[::]:0")) }
pub fn d(socket: &std::net::TcpStream) { drop(socket.set_nodelay(true)) }
pub fn e(socket: std::os::unix::net::UnixStream) { drop(socket) }
pub fn f() { drop(std::process::Command::new("true").spawn()) }
pub fn g() { drop(std::thread::spawn(|| 1)) }
pub fn h() -> bool { std::env::var("A").is_ok() }
pub fn i() -> std::time::Instant { std::time::Instant::now() }
pub fn j() -> bool { std::time::SystemTime::UNIX_EPOCH.elapsed().is_ok() }
pub fn k() { println!("a") }
pub fn l(a: std::collections::HashMap<u8, u8>) { drop(a) }
pub fn m(a: &std::sync::Mutex<u8>) { drop(a.lock()) }
pub fn n() { drop(std::io::stdin()) }
pub fn o() { std::process::exit(1) }
pub fn p() { std::thread::sleep(std::time::Duration::ZERO) }
pub fn q<A: std::net::ToSocketAddrs>(a: A) { drop(a.to_socket_addrs()) }
"#;

#[test]
fn every_way_out_is_found() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-io");
    fs::create_dir_all(&folder).unwrap();
    let (file, output) = (folder.join("planted.rs"), folder.join("planted.rmeta"));
    fs::write(&file, PLANTED).unwrap();
    let driver = Path::new(env!("CARGO")).with_file_name("clippy-driver");
    let said = Command::new(driver)
        .env("CLIPPY_CONF_DIR", root().join(".ci/no-io"))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .arg("-o")
        .args([&output, &file])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    for (number, line) in PLANTED.lines().enumerate().skip(1) {
        let place = format!("planted.rs:{}:", number + 1);
        assert!(said.contains(&place), "{line} is not found:\n{said}");
    }
    // A path that means nothing would be let pass forever.
    assert!(!said.contains("does not refer"), "{said}");
}
