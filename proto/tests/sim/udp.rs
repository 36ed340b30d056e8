//! Special frames and native datagrams between hosts: lost, doubled, out of order and too big.

use std::net::SocketAddrV4;

use proto::native::Report;
use proto::native::tunnel::STREAM_REPORTS;
use proto::native::wire::{HEADER_BYTES, Header, Kind, TAG_BYTES};
use proto::node::LinkInfo;
use proto::overlay::Overlay;
use proto::sleeve::{LinkId, Special};

use super::world::{Host, PORT, What, World};

/// What the device of every host takes.
const DEVICE_MTU: usize = 1500;

impl World {
    pub(crate) fn send_special(&mut self, host: usize, link: LinkId, special: Special) {
        self.udp_packets += 1;
        self.specials += 1;
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
                false => (packet > DEVICE_MTU).then_some(DEVICE_MTU),
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
            mine.overlay == Overlay::Sleeve
                && mine.peer == sender
                && (mine.uid == info.uid || mine.key.is_none() && info.key.is_none())
        });
        if let Some(link) = link.map(|(mine, _)| mine.link) {
            self.with(far, |node, now| {
                node.handle_special(now, link, from, special)
            });
        }
    }

    /// Seals a report and sends it past what routers on the way say of the path.
    pub(crate) fn send_report(&mut self, host: usize, link: LinkId, report: Report, bytes: usize) {
        self.udp_packets += 1;
        let h = &self.hosts[host];
        let Some(to) = h.links[&link].1.remote else {
            return;
        };
        let packet = bytes + 28;
        if packet > DEVICE_MTU {
            if let Some(node) = &mut self.hosts[host].node {
                node.handle_too_big(self.now, link, DEVICE_MTU);
            }
            return;
        }
        let from = h.nat.unwrap_or(SocketAddrV4::new(h.ip, PORT));
        let key = h.keys[&link].send.as_ref().unwrap();
        let mut datagram = vec![0; bytes];
        assert!(report.write(&mut datagram[HEADER_BYTES..bytes - TAG_BYTES]));
        let counter = key.draw(STREAM_REPORTS, 1).unwrap();
        assert!(key.seal(Kind::Report, STREAM_REPORTS, counter, &mut datagram));
        if packet > self.network.path_mtu || self.native_blocked {
            return;
        }
        for _ in 0..1 + u32::from(self.rng.u32(..1000) < self.network.doubling) {
            if self.rng.u32(..1000) >= self.network.loss {
                let at = self.now + self.latency();
                let bytes = datagram.clone();
                self.schedule(at, What::Datagram { from, to, bytes });
            }
        }
    }

    pub(crate) fn datagram_arrives(
        &mut self,
        from: SocketAddrV4,
        to: SocketAddrV4,
        mut bytes: Vec<u8>,
    ) {
        let address = |h: &Host| h.nat.unwrap_or(SocketAddrV4::new(h.ip, PORT));
        let Some(far) = self.hosts.iter().position(|h| address(h) == to) else {
            return;
        };
        let sender = self.hosts.iter().position(|h| address(h) == from);
        if sender.is_none_or(|sender| self.is_blocked(sender, far)) {
            return;
        }
        let header = Header::parse(&bytes).unwrap();
        let keys = self.hosts[far].keys.values();
        let mut keys = keys.flat_map(|keys| keys.receive.clone());
        let Some(key) = keys.find(|key| key.session() == header.session) else {
            return;
        };
        let Ok(opened) = key.open(&header, &mut bytes) else {
            return;
        };
        key.note_datagrams(1);
        let link = key.link();
        let report = Report::parse(&bytes[opened.body]).unwrap();
        let moved = self.hosts[far].links[&link].1.remote != Some(from);
        self.with(far, |node, now| {
            if opened.is_newest && moved {
                node.handle_moved(now, link, from);
            }
            node.handle_report(now, link, key.epoch(), report, bytes.len());
        });
    }
}
