//! Maintains what the router created on its host.
//!
//! The bridge, the TAP device and the ends of containers' interfaces can be deleted, switched off
//! or moved by anybody on the host. The kernel tells of each change; whatever is then not as it
//! should be is mended, or said where it cannot be: a device that was deleted under the running
//! data plane, a port that somebody made a part of another bridge.
//!
//! What a Weave Net router left on the bridge (`WEAVE_PORTS`) is taken off: the bridge has
//! learned that its hosts are behind it, where nobody answers any more. [`Reconciler::give_back`]
//! puts it there again for the way back.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use proto::types::Mac;
use tokio::sync::Notify;

use crate::alias::is_ours;
use crate::attach::listing::outside_peer;
use crate::attach::veth::PREFIX;
use crate::blocking::blocking;
use crate::bridge::{self, Bridge, BridgeConfig, PORT_MTU, TAP_MTU_MAX};
use kernel::arp::NeighbourTiming;
use kernel::error::NetError;
use kernel::netlink::{Link, LinkChange, LinkIndex, LinkMonitor, Netlink};

/// Ports by which a Weave Net router joins the bridge to its own switch.
const WEAVE_PORTS: [&str; 2] = ["vethwe-bridge", "vethwe-pcap"];
/// Devices often change several at a time; so long is waited for more of them. A port that is still
/// wrong after that is not just being made.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// How often devices are looked at even if none changed, in case word was lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Desired state of the host.
#[derive(Clone, Debug)]
pub struct ReconcilerConfig {
    /// The bridge.
    pub bridge: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Times after which the host doubts the addresses of containers.
    pub timing: NeighbourTiming,
    /// The TAP device of the data plane.
    pub tap: String,
}

/// The result of an inspection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What was put right.
    pub mended: Vec<String>,
    /// Problems that last until someone else acts.
    pub wrong: BTreeSet<String>,
    /// Ports that are not as they should be, and were not looked at like this before: they may be
    /// about to be made or taken away.
    pub doubtful: BTreeSet<LinkIndex>,
}

/// Maintains what the router created on its host.
#[derive(Debug)]
pub struct Reconciler {
    config: ReconcilerConfig,
}

impl Reconciler {
    /// Creates a reconciler that has done nothing yet.
    pub const fn new(config: ReconcilerConfig) -> Reconciler {
        Reconciler { config }
    }

    /// Looks at everything once, and mends what can be mended. One thing that cannot does not
    /// keep the others from it.
    pub fn look(&self) -> Result<Found, NetError> {
        self.look_again(None)
    }

    /// As [`Reconciler::look`], but of ports mends only those that were doubtful before.
    fn look_again(&self, doubtful: Option<&BTreeSet<LinkIndex>>) -> Result<Found, NetError> {
        let netlink = Netlink::open()?;
        let mut found = Found::default();
        let bridge = self.bridge(&netlink, &mut found)?;
        let links = netlink.links()?;
        self.tap(&netlink, &bridge, &links, &mut found);
        for link in &links {
            let result = if WEAVE_PORTS.contains(&link.name.as_str()) {
                take_off(&netlink, &bridge, link)
            } else if doubtful.is_none_or(|before| before.contains(&link.index))
                || is_elsewhere(&bridge, link)
            {
                port(&netlink, &bridge, link)
            } else {
                if is_doubtful(&bridge, link) {
                    found.doubtful.insert(link.index);
                }
                Ok(Look::Right)
            };
            match result {
                Ok(Look::Right) => {}
                Ok(Look::Mended(what)) => found.mended.push(what),
                Ok(Look::Wrong(what)) => drop(found.wrong.insert(what)),
                // It was deleted while we looked.
                Err(error) if error.is(rustix::io::Errno::NODEV) => {}
                Err(error) => drop(found.wrong.insert(format!("{}: {error}", link.name))),
            }
        }
        Ok(found)
    }

    fn bridge(&self, netlink: &Netlink, found: &mut Found) -> Result<Bridge, NetError> {
        let config = &self.config;
        let there = Bridge::find(netlink, &config.bridge)?;
        let is_right =
            |link: &Link| link.up && link.mac == Some(config.mac) && link.mtu == config.mtu;
        let what = match &there {
            Some(bridge) if is_right(&bridge.link) => return Ok(bridge.clone()),
            Some(_) => "changed",
            None => "deleted",
        };
        let bridge = Bridge::ensure(
            netlink,
            &BridgeConfig {
                name: &config.bridge,
                mac: config.mac,
                mtu: config.mtu,
                timing: config.timing,
            },
        )?;
        found
            .mended
            .push(format!("the bridge {}, which was {what}", config.bridge));
        Ok(bridge)
    }

    fn tap(&self, netlink: &Netlink, bridge: &Bridge, links: &[Link], found: &mut Found) {
        let name = &self.config.tap;
        let Some(tap) = links.iter().find(|link| link.name == *name) else {
            found.wrong.insert(format!(
                "the device {name} was deleted: nothing reaches other hosts until the router is \
                 started again"
            ));
            return;
        };
        if tap.up && tap.master == Some(bridge.link.index) && tap.mtu == TAP_MTU_MAX {
            return;
        }
        match bridge.add_tap(netlink, name) {
            Ok(()) => {
                let what = format!("the device {name}, which was off the bridge or switched off");
                found.mended.push(what);
            }
            Err(error) => drop(found.wrong.insert(format!("{name}: {error}"))),
        }
    }

    /// Puts back what a Weave Net router had on the bridge, so that it finds it when it starts.
    pub fn give_back(&self) -> Result<(), NetError> {
        let netlink = Netlink::open()?;
        let Some(bridge) = Bridge::find(&netlink, &self.config.bridge)? else {
            return Ok(());
        };
        for name in WEAVE_PORTS {
            if let Some(link) = netlink.link(name)? {
                let change = LinkChange {
                    master: Some(Some(bridge.link.index)),
                    up: Some(true),
                    ..LinkChange::default()
                };
                netlink.change_link(&link, &change)?;
            }
        }
        Ok(())
    }
}

/// The result of inspecting one device.
enum Look {
    Right,
    Mended(String),
    Wrong(String),
}

/// Takes a port of a Weave Net router off the bridge, which forgets what it learned there.
fn take_off(netlink: &Netlink, bridge: &Bridge, link: &Link) -> Result<Look, NetError> {
    if link.master != Some(bridge.link.index) {
        return Ok(Look::Right);
    }
    let change = LinkChange {
        master: Some(None),
        up: Some(false),
        ..LinkChange::default()
    };
    netlink.change_link(link, &change)?;
    Ok(Look::Mended(format!(
        "{}, by which a Weave Net router was on the bridge; it is off",
        link.name
    )))
}

/// Returns true if a device may be the end of a container's interface and is not as it should be.
fn is_doubtful(bridge: &Bridge, link: &Link) -> bool {
    let is_containers = is_ours(link.alias.as_deref()) || link.name.starts_with(PREFIX);
    let is_here = link.master == Some(bridge.link.index);
    let is_right = is_here && (link.up || !is_containers) && link.mtu == PORT_MTU;
    outside_peer(link).is_some() && (is_containers || is_here) && !is_right
}

/// Returns true if a device is a port of another bridge, where somebody put it.
fn is_elsewhere(bridge: &Bridge, link: &Link) -> bool {
    link.master
        .is_some_and(|master| master != bridge.link.index)
}

/// Looks at a device that may be the end of a container's interface.
fn port(netlink: &Netlink, bridge: &Bridge, link: &Link) -> Result<Look, NetError> {
    let is_containers = is_ours(link.alias.as_deref()) || link.name.starts_with(PREFIX);
    let is_here = link.master == Some(bridge.link.index);
    // Until its other end has moved, a pair is being made or taken apart by somebody.
    if !is_doubtful(bridge, link) {
        return Ok(Look::Right);
    }
    if is_elsewhere(bridge, link) {
        return Ok(Look::Wrong(format!(
            "the port {} of a container was moved to another bridge; its addresses are kept",
            link.name
        )));
    }
    let mut mended = Vec::new();
    if !is_here {
        mended.push("was off the bridge");
    }
    if !link.up && is_containers {
        mended.push("was switched off");
    }
    if !is_here {
        bridge::no_host_traffic(&link.name)?;
    }
    let change = LinkChange {
        mtu: (link.mtu != PORT_MTU).then_some(PORT_MTU),
        master: (!is_here).then_some(Some(bridge.link.index)),
        up: is_containers.then_some(true),
        ..LinkChange::default()
    };
    netlink.change_link(link, &change)?;
    if !is_here {
        netlink.set_hairpin(link, true)?;
    }
    Ok(match mended.is_empty() {
        true => Look::Right,
        false => Look::Mended(format!(
            "the port {}, which {}",
            link.name,
            mended.join(" and ")
        )),
    })
}

/// Mends, until the router ends, what others change; what cannot be mended is logged when it
/// begins.
pub async fn watch(reconciler: Arc<Reconciler>) {
    let changed = Arc::new(Notify::new());
    let started = LinkMonitor::open().map_err(|error| error.to_string());
    let started = started.and_then(|monitor| {
        listen(monitor, Arc::downgrade(&changed)).map_err(|error| error.to_string())
    });
    if let Err(error) = started {
        tracing::warn!(error, "changes of devices are found late");
    }
    let mut wrong = BTreeSet::new();
    let mut doubtful = BTreeSet::new();
    loop {
        if doubtful.is_empty() {
            // Without word of a change it is time to look all the same.
            let _ = tokio::time::timeout(LOOK_INTERVAL, changed.notified()).await;
        }
        tokio::time::sleep(SETTLE_TIME).await;
        let reconciler = Arc::clone(&reconciler);
        let look = move || reconciler.look_again(Some(&doubtful));
        let found = match blocking(look).await {
            Ok(found) => found,
            Err(error) => Found {
                wrong: BTreeSet::from([error]),
                ..Found::default()
            },
        };
        log(&found, &wrong);
        (wrong, doubtful) = (found.wrong, found.doubtful);
    }
}

/// Tells of what was found. What was wrong before is not said again.
pub fn log(found: &Found, before: &BTreeSet<String>) {
    for what in &found.mended {
        tracing::warn!("mended {what}");
    }
    for what in found.wrong.difference(before) {
        tracing::error!("{what}");
    }
    for what in before.difference(&found.wrong) {
        tracing::info!("no more: {what}");
    }
}

/// Tells of changes as long as somebody listens.
fn listen(monitor: LinkMonitor, changed: Weak<Notify>) -> io::Result<()> {
    let tell = move || {
        while monitor.wait().is_ok()
            && let Some(changed) = changed.upgrade()
        {
            changed.notify_one();
        }
    };
    let thread = std::thread::Builder::new().name("weft-devices".to_owned());
    thread.spawn(tell).map(drop)
}

#[cfg(test)]
mod tests;
