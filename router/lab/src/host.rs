//! Hosts made of network namespaces, joined by a switch, for demonstrations, tests and benchmarks.
//!
//! Nothing has a name outside this process: a namespace ends with the last process in it and the
//! last descriptor of it. So a lab leaves nothing behind in the kernel, even after kill -9, except
//! processes that were started in it; those carry the lab's name in their environment, and the
//! next lab ends those whose lab is gone, together with its folder of files.
//!
//! ```text
//!  host 0            switch               host 1                  behind a router
//!  eth0 ------------ port0               eth0                     eth0
//!  172.30.0.1/16       |- bridge switch -|- port1        port2 ---- 172.29.2.2/24
//!                       172.30.255.254/16                 172.29.2.1/24
//! ```
//!
//! The switch's namespace forwards between its bridge and the links of hosts that are behind a
//! router, with or without address translation.

mod faults;
mod stale;

pub use stale::remove_stale;

use std::fs;
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use proto::types::Mac;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use self::faults::Faults;
use host::bridge;
use kernel::error::{KernelError, NetError};
use kernel::netlink::{
    Link, LinkChange, LinkIndex, Netlink, NewBridge, NewVeth, PortState, Route, VethPeer,
};
use kernel::netns::Namespace;
use kernel::sysctl;

/// Hosts and the switch between them. Dropping it ends the processes that were started in it and
/// removes everything.
#[derive(Debug)]
pub struct Lab {
    /// Names the lab in the environment of its processes, and its folder.
    name: String,
    folder: PathBuf,
    switch: Namespace,
    switch_netlink: Netlink,
    switch_link: Link,
    hosts: Vec<Host>,
    faults: Faults,
}

/// A host of a lab.
#[derive(Debug)]
pub struct Host {
    /// Its namespace: loopback, and `eth0` to the switch.
    pub namespace: Namespace,
    /// The address of `eth0`.
    pub address: Ipv4Addr,
    /// Where it is.
    pub place: Place,
    /// The other end of `eth0`, in the switch's namespace.
    port: Link,
}

/// Location of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On the switch, with all others there.
    #[default]
    Switch,
    /// Behind a router, which tells senders when packets are too large.
    Router,
    /// Behind a router that hides its address.
    Nat,
}

/// Options for making a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// MTU of its link in bytes.
    pub mtu: u32,
    /// Where it is.
    pub place: Place,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            mtu: 1500,
            place: Place::Switch,
        }
    }
}

impl Lab {
    /// Creates a switch without hosts. What a lab whose process is gone left behind is removed
    /// first. `folder` is where labs keep files, [`FOLDER`] if not given.
    pub fn new(folder: Option<&Path>) -> Result<Lab, NetError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = folder.unwrap_or(Path::new(FOLDER));
        remove_stale(folder)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = stale::lab_name(std::process::id(), count)?;
        let folder = folder.join(&name);
        let at = |e: std::io::Error| NetError::io("create the folder of a lab", &e);
        fs::create_dir_all(&folder).map_err(at)?;

        let switch = Namespace::new()?.labelled("the lab's switch");
        switch.loopback_up()?;
        let netlink = switch.netlink()?;
        netlink.create_bridge(&NewBridge {
            name: "switch",
            mac: Some(Mac::from_bytes([2, 0, 0, 0, 0xff, 0xfe])),
        })?;
        let link = netlink.link_named("switch")?;
        let change = LinkChange {
            mtu: Some(bridge::MTU_MAX),
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.change_link(&link, &change)?;
        netlink.add_address(&link, network(GATEWAY, SWITCH_PREFIX).into())?;
        switch.run(|| sysctl::set("ipv4/ip_forward", "1"))??;
        Ok(Lab {
            name,
            folder,
            switch,
            switch_netlink: netlink,
            switch_link: link,
            hosts: Vec::new(),
            faults: Faults::default(),
        })
    }

    /// Creates a lab with so many hosts on its switch.
    pub fn with_hosts(count: usize) -> Result<Lab, NetError> {
        let mut lab = Lab::new(None)?;
        for _ in 0..count {
            lab.add_host(HostOptions::default())?;
        }
        Ok(lab)
    }

    /// Adds a host and returns its number. Its link carries packets when this returns.
    pub fn add_host(&mut self, options: HostOptions) -> Result<usize, NetError> {
        let number = self.hosts.len();
        if number >= HOSTS_MAX {
            return Err(KernelError::new("add a host to a lab", Errno::NOSPC).into());
        }
        let namespace = Namespace::new()?.labelled(format!("host {number}"));
        namespace.loopback_up()?;
        let small = u8::try_from(number).unwrap_or(u8::MAX);
        let on_switch = options.place == Place::Switch;
        let (address, prefix, gateway) = if on_switch {
            let [high, low] = u16::try_from(number + 1).unwrap_or(u16::MAX).to_be_bytes();
            (Ipv4Addr::new(172, 30, high, low), SWITCH_PREFIX, GATEWAY)
        } else {
            let address = Ipv4Addr::new(172, 29, small, 2);
            (address, 24, Ipv4Addr::new(172, 29, small, 1))
        };
        let name = format!("port{number}");
        self.switch_netlink.create_veth(&NewVeth {
            name: &name,
            // When both ends of a pair have the same number, the kernel may take a second to see
            // that the link is up (linkwatch_urgent_event in net/core/link_watch.c).
            index: Some(LinkIndex(FIRST_PORT + number as u32)),
            mtu: options.mtu,
            master: on_switch.then_some(self.switch_link.index),
            peer: VethPeer {
                name: "eth0",
                index: None,
                mac: None,
                namespace: Some(std::os::fd::AsFd::as_fd(&namespace)),
            },
        })?;
        let port = self.switch_netlink.link_named(&name)?;
        self.switch_netlink.set_up(&port, true)?;
        if !on_switch {
            let network = network(gateway, prefix);
            self.switch_netlink.add_address(&port, network.into())?;
        }
        let inside = namespace.netlink()?;
        let link = inside.link_named("eth0")?;
        inside.add_address(&link, network(address, prefix).into())?;
        inside.set_up(&link, true)?;
        inside.add_route(&Route::through(Ipv4Net::default().into(), gateway.into()))?;
        self.hosts.push(Host {
            namespace,
            address,
            place: options.place,
            port,
        });
        if options.place == Place::Nat {
            self.apply_nat()?;
        }
        self.wait_until_ready(number)?;
        Ok(number)
    }

    /// Returns the hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Creates a namespace for a container: loopback only, not attached to anything.
    pub fn new_container(&self) -> Result<Namespace, NetError> {
        let namespace = Namespace::new()?.labelled("a container");
        namespace.loopback_up()?;
        Ok(namespace)
    }

    /// Returns the namespace of the switch, to look at what passes.
    pub const fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Returns a folder for files of this lab, which is removed with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a process on a host. It is ended with the lab at the latest.
    pub fn spawn(&self, host: usize, command: &mut Command) -> Result<LabProcess, NetError> {
        self.spawn_in(&self.hosts[host].namespace, command)
    }

    /// Starts a process in a namespace, such as a container. It is ended with the lab at the
    /// latest.
    pub fn spawn_in(
        &self,
        namespace: &Namespace,
        command: &mut Command,
    ) -> Result<LabProcess, NetError> {
        let child = namespace.spawn(command.env(stale::ENVIRONMENT, &self.name))?;
        Ok(LabProcess { child })
    }

    fn wait_until_ready(&self, host: usize) -> Result<(), NetError> {
        let port = &self.hosts[host].port;
        let deadline = Instant::now() + READY_WAIT_MAX;
        loop {
            let link = self.switch_netlink.link_at(port.index)?;
            let ready = link.is_some_and(|link| match link.port {
                Some(port) => port.state == PortState::Forwarding,
                None => link.carrier,
            });
            if ready || Instant::now() > deadline {
                return Ok(());
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        stale::end_processes(&self.name);
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "the folder of a lab could not be removed");
        }
    }
}

/// A process on a host of a lab. Dropping it kills the process.
#[derive(Debug)]
pub struct LabProcess {
    child: Child,
}

impl LabProcess {
    /// Asks the process to end (SIGTERM).
    pub fn terminate(&self) -> Result<(), NetError> {
        let failed = |errno: rustix::io::Errno| NetError::io("end a process", &errno.into());
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed(Errno::SRCH))?;
        rustix::process::kill_process(pid, Signal::TERM).map_err(failed)
    }
}

impl Deref for LabProcess {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for LabProcess {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for LabProcess {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(address, prefix)
}

/// Default folder for the files of labs.
pub const FOLDER: &str = "/run/weft/lab";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 255, 254);
const SWITCH_PREFIX: u8 = 16;
/// The number of the first port of the switch: above any number that hosts get to.
const FIRST_PORT: u32 = 100_000;
/// Hosts of one lab, as far as addresses behind routers reach; more are refused.
const HOSTS_MAX: usize = 250;
/// Maximum time for a new link to carry packets.
const READY_WAIT_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
