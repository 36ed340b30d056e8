use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use kernel::netns::Namespace;
use testbed::root::needs_root;

#[test]
fn one_holder_per_namespace() {
    needs_root!();
    let (one, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let lock = one.run(RouterLock::acquire).unwrap().unwrap();
    let second = one.run(RouterLock::acquire).unwrap().unwrap_err();
    let LockError::Held(holder) = &second else {
        panic!("{second}");
    };
    assert_eq!(holder.pid, Some(std::process::id()));
    // The thread that looks is in the namespace, the holder's main thread is not.
    assert!(second.to_string().contains("already running"), "{second}");

    assert_eq!(other.run(super::holder).unwrap().unwrap(), None);
    let elsewhere = other.run(RouterLock::acquire).unwrap().unwrap();
    drop(lock);
    let lock = one.run(RouterLock::acquire).unwrap().unwrap();
    drop((lock, elsewhere));
    assert_eq!(one.run(super::holder).unwrap().unwrap(), None);
}

/// The holder is this test itself, in another process.
#[test]
fn a_killed_holder_leaves_nothing() {
    if std::env::var_os(CHILD).is_some() {
        let _lock = RouterLock::acquire().unwrap();
        println!("the lock is held");
        return thread::sleep(Duration::from_secs(60));
    }
    needs_root!();
    let namespace = Namespace::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture"])
        .arg("lock::tests::a_killed_holder_leaves_nothing")
        .env(CHILD, "1")
        .stdout(Stdio::piped());
    let mut child = namespace.spawn(&mut command).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines
        .map_while(Result::ok)
        .any(|line| line.contains("the lock is held"));
    assert!(told);

    let found = namespace.run(super::holder).unwrap().unwrap().unwrap();
    assert_eq!(found.pid, Some(child.id()));
    assert!(found.command.is_some(), "it is in this namespace");
    assert!(namespace.run(RouterLock::acquire).unwrap().is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    namespace.run(RouterLock::acquire).unwrap().unwrap();
}

/// Set in the environment of the other process.
const CHILD: &str = "WEFT_TEST_HOLDS_LOCK";
