//! Names of containers: across hosts, as they come, move and go, and what is asked of others.

mod containers;
mod interfaces;
mod mixed;
mod server;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::netns::Namespace;
use lab::host::LabProcess;
use netns_tests::names::addresses;
use netns_tests::{Mesh, wait};

fn set(list: &[Ipv4Addr]) -> BTreeSet<IpAddr> {
    list.iter().map(|ip| IpAddr::from(*ip)).collect()
}

fn ip(host: usize, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, u8::try_from(host + 1).unwrap(), number)
}

/// Waits until the routers of these hosts say this of a name, and tells how long it took.
#[track_caller]
fn wait_for_name(mesh: &Mesh, hosts: &[usize], name: &str, expected: &[Ipv4Addr]) -> Duration {
    let start = Instant::now();
    for host in hosts {
        let what = format!("host {host} says {expected:?} of {name}");
        wait::until_true(&what, wait::LATER, || {
            addresses(mesh.namespace(*host), name) == Some(set(expected))
        });
    }
    start.elapsed()
}

#[track_caller]
fn add(mesh: &Mesh, host: usize, container: &str, address: Ipv4Addr, name: &str) {
    let path = format!("/name/{container}/{address}");
    let answer = mesh.request(host, "PUT", &path, &format!("fqdn={name}.weave.local"));
    assert_eq!(answer.status, 204, "{answer:?}");
}
/// A container: a process with a host name, a root and a network of its own.
struct Process {
    process: LabProcess,
    namespace: Namespace,
}

impl Process {
    fn start(mesh: &Mesh, host: usize, name: &str) -> Process {
        let namespace = mesh.lab.new_container().unwrap();
        let conf = mesh.folder(host).join(format!("{name}.conf"));
        std::fs::write(
            &conf,
            "nameserver 192.0.2.1\nsearch example.com\noptions ndots:1\n",
        )
        .unwrap();
        let ready = mesh.folder(host).join(format!("{name}.ready"));
        let script = format!(
            "hostname {name} && mount --bind {} /etc/resolv.conf && touch {} && exec sleep 600",
            conf.display(),
            ready.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--uts", "--mount", "--", "sh", "-c", &script]);
        let process = mesh.lab.spawn_in(&namespace, &mut command).unwrap();
        wait::until_true("the container has started", wait::SOON, || ready.exists());
        std::fs::remove_file(ready).unwrap();
        Process { process, namespace }
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    fn resolv_conf(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", self.pid())).unwrap()
    }

    /// Returns what programs in the container find for a name, by the C library.
    fn look_up(&self, mesh: &Mesh, host: usize, name: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--mount", "--uts", "--net", "--"]);
        command.args(["getent", "ahostsv4", name]);
        mesh.run(host, &mut command).stdout
    }
}
