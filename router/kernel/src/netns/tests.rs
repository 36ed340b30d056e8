use std::process::Stdio;

use super::*;
use testbed::root::needs_root;

#[test]
fn work_is_inside_and_the_thread_stays_outside() {
    needs_root!();
    let before = Namespace::current().unwrap();
    let new = Namespace::new().unwrap();
    assert_ne!(new, before);
    let inside = new.run(|| Namespace::current().unwrap()).unwrap();
    assert_eq!(inside, new);
    assert_eq!(Namespace::current().unwrap(), before);

    let links = new.netlink().unwrap().links().unwrap();
    assert!(links.iter().any(|link| link.name == "lo" && !link.up));
    new.loopback_up().unwrap();
    let netlink = new.netlink().unwrap();
    assert!(netlink.link_named("lo").unwrap().up);
}

#[test]
fn a_panic_reaches_the_caller() {
    needs_root!();
    let before = Namespace::current().unwrap();
    let new = Namespace::new().unwrap();
    let result = std::panic::catch_unwind(|| new.run(|| panic!("inside")));
    assert!(result.is_err());
    assert_eq!(Namespace::current().unwrap(), before);
}

#[test]
fn targets_are_pids_paths_and_names() {
    needs_root!();
    let new = Namespace::new().unwrap();
    let mut child = new
        .spawn(std::process::Command::new("sleep").arg("60"))
        .unwrap();
    let pid = child.id();
    assert_eq!(Namespace::resolve(&pid.to_string()).unwrap(), new);
    assert_eq!(Namespace::of_pid(pid).unwrap(), new);
    let path = format!("/proc/{pid}/ns/net");
    assert_eq!(Namespace::resolve(&path).unwrap(), new);
    assert_eq!(Namespace::at(&new.path()).unwrap(), new);

    let found = find_all(Path::new("/proc"));
    let found = found.iter().find(|found| found.id == new.id()).unwrap();
    assert_eq!((found.pids.as_slice(), found.names.len()), (&[pid][..], 0));
    assert_eq!(found.open(Path::new("/proc")).unwrap(), new);
    child.kill().unwrap();
    child.wait().unwrap();

    for none in [
        "4194305",
        "99999999999",
        "/no/such/file",
        "no-such-name",
        "",
        "..",
    ] {
        let error = Namespace::resolve(none).unwrap_err();
        assert!(
            matches!(error, NetError::NoNamespace { .. }),
            "{none}: {error}"
        );
    }
    for other in ["/dev/null", "/proc/self/ns/mnt"] {
        let error = Namespace::resolve(other).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{other} is no network namespace")
        );
    }
}

#[test]
fn names_are_made_and_removed() {
    needs_root!();
    let name = format!("weft-test-{}", std::process::id());
    let made = Namespace::create(&name).unwrap();
    let again = Namespace::create(&name).unwrap_err();
    let found = Namespace::resolve(&name);
    let all = find_all(Path::new("/proc"));
    let removed = Namespace::remove(&name).unwrap();
    assert_eq!(found.unwrap(), made);
    assert!(again.is(rustix::io::Errno::EXIST), "{again}");
    let listed = all.iter().find(|found| found.id == made.id()).unwrap();
    assert_eq!(listed.names, [Path::new("/run/netns").join(&name)]);
    assert!(removed);
    assert!(!Namespace::remove(&name).unwrap());
    assert!(Namespace::named(&name).is_err());
}

#[test]
fn processes_start_inside() {
    needs_root!();
    let new = Namespace::new().unwrap();
    let mut command = std::process::Command::new("readlink");
    command.arg("/proc/self/ns/net").stdout(Stdio::piped());
    let output = new.spawn(&mut command).unwrap().wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.trim(), format!("net:[{}]", new.id().inode()));
}

#[test]
fn settings_are_those_of_the_namespace() {
    needs_root!();
    let outside = sysctl::get("ipv4/ip_default_ttl").unwrap();
    let new = Namespace::new().unwrap();
    new.set_sysctl("ipv4/ip_default_ttl", "33").unwrap();
    let get = || sysctl::get("ipv4/ip_default_ttl").unwrap();
    assert_eq!(new.run(get).unwrap().as_deref(), Some("33"));
    assert_eq!(get(), outside);
    new.run(|| {
        assert_eq!(sysctl::get("ipv4/no_such_setting").unwrap(), None);
        assert!(!sysctl::set_if_present("ipv4/no_such_setting", "1").unwrap());
        assert!(sysctl::set("ipv4/no_such_setting", "1").is_err());
        sysctl::write_privately("ipv4/ip_default_ttl", "44").unwrap();
        assert_eq!(get().as_deref(), Some("44"));
    })
    .unwrap();
    assert_eq!(get(), outside);
}
