//! Every command in README.md and docs is run as it is written there, and what it prints is compared
//! with what the text promises; the table says of each where, or why it is not run here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they run"
)]

mod host;
mod table;
mod text;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netns_tests::{Kind, Mesh, needs_root};

use self::host::Host;
use self::table::{COMMANDS, Scene, Shows};

/// Every command of the documents is in the table, and every line of the table in a document.
#[test]
fn every_command_is_in_the_table() {
    let written = text::commands();
    let written: BTreeSet<(&str, &str)> = written
        .iter()
        .map(|(file, command)| (file.as_str(), command.as_str()))
        .collect();
    let table: BTreeSet<(&str, &str)> = COMMANDS
        .iter()
        .flat_map(|line| line.files.iter().map(|file| (*file, line.command)))
        .collect();
    let missing: Vec<_> = written.difference(&table).collect();
    assert!(missing.is_empty(), "in no table: {missing:#?}");
    let gone: Vec<_> = table.difference(&written).collect();
    assert!(gone.is_empty(), "in no document: {gone:#?}");
}

/// What is not run says why, and where something like it is.
#[test]
fn what_is_not_run_says_why() {
    for line in COMMANDS {
        if let Scene::Elsewhere(why) = line.scene {
            assert!(why.len() > 10, "{}", line.command);
        }
    }
}

#[test]
fn commands_are_found_in_the_text() {
    let page = "a `b`\n```\n# weft x    # why\nhost2# weft y     what it does\n\nsudo z \\\n    -a\n```\n\
                ```json\n{}\n```\n";
    assert_eq!(
        text::commands_in(page),
        ["weft x", "host2: weft y", "sudo z -a"]
    );
}

/// Commands that are mentioned in a sentence exist, with the flags that they are mentioned with.
#[test]
fn what_sentences_name_exists() {
    for (file, command) in text::mentioned() {
        let mut words = command.split_whitespace().skip(1);
        let mut path: Vec<&str> = Vec::new();
        let mut flags = Vec::new();
        for word in words.by_ref() {
            match word.split('=').next() {
                Some(flag) if flag.starts_with('-') => flags.push(flag),
                _ if flags.is_empty()
                    && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') =>
                {
                    path.push(word);
                }
                _ => {}
            }
        }
        let Some((help, _)) = host::help(&path) else {
            panic!("{file}: `{command}`: there is no such command");
        };
        for flag in flags {
            let known = help.split(|c: char| c.is_whitespace() || ",[=".contains(c));
            assert!(
                known.into_iter().any(|word| word == flag),
                "{file}: `{command}`: there is no {flag}"
            );
        }
    }
}

/// Runs the lines of a scene in their order.
fn play(scene: &Scene, mesh: &Mesh, hosts: &mut [Host]) {
    for line in COMMANDS.iter().filter(|line| line.scene == *scene) {
        let (number, command) = match line.command.split_once(": ") {
            Some((host, command)) if host.starts_with("host") => {
                (usize::from(host == "host2"), command)
            }
            _ => (line.host, line.command),
        };
        let command = hosts[number].filled_in(command, mesh);
        println!("{}: host {}: {command}", line.files[0], number + 1);
        if line.shows == Shows::Starts {
            hosts[number].start(mesh, &command);
            continue;
        }
        let ran = hosts[number].run(mesh, &command);
        assert!(ran.status.success(), "{command}: {ran:?}");
        match line.shows {
            Shows::Nothing => assert_eq!(ran.stdout, "", "{command}"),
            Shows::Text(text) => {
                assert!(ran.stdout.contains(text), "{command}: {text}: {ran:?}");
            }
            Shows::Exactly(text) => assert_eq!(ran.stdout.trim(), text, "{command}"),
            Shows::Address(part) => {
                let shown: Ipv4Addr = ran.stdout.trim().parse().unwrap_or_else(|error| {
                    panic!("{command}: no address: {error}: {ran:?}");
                });
                let range: ipnet::Ipv4Net = part.parse().unwrap();
                assert!(range.contains(&shown), "{command}: {ran:?}");
            }
            Shows::Starts => {}
        }
    }
}

/// From the first line of the README to a container that is found by its name.
#[test]
fn two_hosts_are_set_up() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft; 2]);
    let mut hosts = [Host::new(&mesh, 0), Host::new(&mesh, 1)];
    play(&Scene::First, &mesh, &mut hosts[..1]);
    let password = hosts[0].run(&mesh, "stat -c %a /etc/weft /etc/weft/password");
    assert_eq!(password.stdout, "700\n600\n");
    let copied = hosts[0].run(&mesh, "cat /etc/weft/password").stdout;
    assert!(copied.trim().len() >= 32, "{copied}");
    hosts[1].copy(&mesh, "/etc/weft/password", &copied);
    play(&Scene::Second, &mesh, &mut hosts);
    mesh_is_whole(&mesh, &hosts);
    play(&Scene::Used, &mesh, &mut hosts);
}

/// An identity on two hosts, in a mesh that has given out nothing else.
#[test]
fn an_identity_keeps_its_address() {
    needs_root!();
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        let needs = "the program ip (Debian: iproute2)";
        return testbed::skips::skip("an_identity_keeps_its_address", needs);
    }
    let mesh = Mesh::new(&[Kind::Weft; 2]);
    let mut hosts = [Host::new(&mesh, 0), Host::new(&mesh, 1)];
    hosts[0].start(&mesh, "weft launch");
    let first = format!("weft launch {}", mesh.address(0));
    hosts[1].start(&mesh, &first);
    mesh_is_whole(&mesh, &hosts);
    for host in &hosts {
        let made = host.run(&mesh, "ip netns add web");
        assert!(made.status.success(), "{made:?}");
    }
    let mac = |host: &Host| {
        let show = "ip netns exec web cat /sys/class/net/ethwe/address";
        let shown = host.run(&mesh, show);
        assert!(shown.status.success(), "{shown:?}");
        shown.stdout
    };
    let mut macs = Vec::new();
    for line in COMMANDS.iter().filter(|line| line.scene == Scene::Identity) {
        let (host, command) = line.command.split_once(": ").unwrap();
        let host = &hosts[usize::from(host == "host2")];
        let ran = host.run(&mesh, command);
        assert!(ran.status.success(), "{command}: {ran:?}");
        if command.contains("attach") {
            // The page promises it behind an arrow.
            let promised = text::promised("README.md", line.command);
            assert_eq!(ran.stdout.trim(), promised, "{command}");
            macs.push(mac(host));
        }
    }
    assert_eq!(macs.len(), 2);
    // "again, with the same MAC"
    assert_eq!(macs[0], macs[1]);
}

/// Names, addresses and rules on one host.
#[test]
fn one_host_does_what_its_pages_say() {
    needs_root!();
    for scene in [
        Scene::Addresses,
        Scene::Names,
        Scene::Rules,
        Scene::Cni,
        Scene::Alone,
    ] {
        let mesh = Mesh::new(&[Kind::Weft]);
        let mut hosts = [Host::new(&mesh, 0)];
        hosts[0].copy(&mesh, "/etc/weft/password", "a password of some length\n");
        if scene != Scene::Alone {
            hosts[0].start(&mesh, "weft launch");
        }
        play(&scene, &mesh, &mut hosts);
        if scene == Scene::Cni {
            let left = hosts[0].run(&mesh, "ls /etc/cni/net.d /opt/cni/bin");
            assert_eq!(
                left.stdout, "/etc/cni/net.d:\n\n/opt/cni/bin:\n",
                "{left:?}"
            );
        }
    }
}

fn mesh_is_whole(mesh: &Mesh, hosts: &[Host]) {
    for (host, other) in [(&hosts[0], mesh.address(1)), (&hosts[1], mesh.address(0))] {
        netns_tests::wait::until_true("both are connected", netns_tests::wait::LATER, || {
            let page = host.run(mesh, "weft status connections").stdout;
            page.lines()
                .any(|line| line.contains("established") && line.contains(&other.to_string()))
        });
    }
}
