//! Special frames between hosts: lost, doubled, out of order and too big.

use std::net::SocketAddrV4;

use proto::node::LinkInfo;
use proto::sleeve::{LinkId, Special};

use super::world::{Host, PORT, What, World};

impl World {
    pub(crate) fn send_special(&mut self, host: usize, link: LinkId, special: Special) {
        self.udp_packets += 1;
        let h = &self.hosts[host];
        let (info, path) = &h.links[&link];
        let Some(to) = path.remote else { return };
        let from = h.nat.unwrap_or(SocketAddrV4::new(h.ip, PORT));
        let overhead = 28 + 14 + if info.key.is_some() { 30 } else { 6 };
        let packet = special.frame_len() + overhead;
        let info = Box::new(info.clone());
        if packet > self.network.path_mtu && !matches!(special, Special::FragmentationTest) {
            // The kernel knows its own interface in any case.
            let told = match self.network.path_mtu_told {
                true => Some(self.network.path_mtu),
                false => (packet > 1500).then_some(1500),
            };
            if let (Some(mtu), Some(node)) = (told, &mut self.hosts[host].node) {
                node.handle_too_big(self.now, link, mtu);
            }
            return;
        }
        for _ in 0..1 + u32::from(self.rng.u32(..1000) < self.network.doubling) {
            if self.rng.u32(..1000) >= self.network.loss {
                let at = self.now + self.latency();
                let info = info.clone();
                self.schedule(
                    at,
                    What::Special {
                        from,
                        info,
                        to,
                        special,
                    },
                );
            }
        }
    }

    pub(crate) fn special_arrives(
        &mut self,
        from: SocketAddrV4,
        info: &LinkInfo,
        to: SocketAddrV4,
        special: Special,
    ) {
        let address = |h: &Host| h.nat.unwrap_or(SocketAddrV4::new(h.ip, PORT));
        let Some(far) = self.hosts.iter().position(|h| address(h) == to) else {
            return;
        };
        let sender = self.hosts.iter().position(|h| address(h) == from);
        if sender.is_none_or(|sender| self.is_blocked(sender, far)) {
            return;
        }
        let Some(sender) = sender else { return };
        let sender = self.hosts[sender].name;
        // A packet is for the link with its sender, and opens if it was sealed for that one.
        let link = self.hosts[far].links.values().find(|(mine, _)| {
            mine.peer == sender
                && (mine.uid == info.uid || mine.key.is_none() && info.key.is_none())
        });
        if let Some(link) = link.map(|(mine, _)| mine.link) {
            self.with(far, |node, now| {
                node.handle_special(now, link, from, special)
            });
        }
    }
}
