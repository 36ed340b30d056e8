//! What everything is measured against: containers of two hosts, joined by the kernel's VXLAN.

use kernel::netlink::{LinkChange, Netlink, NewVxlan};
use kernel::netns::Namespace;
use lab::host::Lab;
use testbed::rig::{BRIDGE, Options, TrialError, bridge_with_container};

/// Two hosts, whose containers reach each other at [`testbed::rig::Trial::address`]. They
/// last as long as the lab.
pub fn pair() -> Result<(Lab, [Namespace; 2]), TrialError> {
    let lab = Lab::with_hosts(2)?;
    let join = |number: usize| -> Result<Namespace, TrialError> {
        let container = bridge_with_container(&lab, number, Options::default().mtu)?;
        let netlink = lab.hosts()[number].namespace.netlink()?;
        netlink.create_vxlan(&NewVxlan {
            name: "vxlan",
            number: 7,
            local: lab.hosts()[number].address,
            remote: lab.hosts()[1 - number].address,
            port: 4789,
        })?;
        add_port(&netlink, "vxlan")?;
        Ok(container)
    };
    let containers = [join(0)?, join(1)?];
    Ok((lab, containers))
}

/// Makes a device a port of the host's bridge, with the MTU of the containers.
pub fn add_port(netlink: &Netlink, device: &str) -> Result<(), TrialError> {
    let bridge = netlink.link_named(BRIDGE)?;
    let change = LinkChange {
        mtu: Some(Options::default().mtu),
        master: Some(Some(bridge.index)),
        up: Some(true),
        ..LinkChange::default()
    };
    Ok(netlink.change_link(&netlink.link_named(device)?, &change)?)
}
