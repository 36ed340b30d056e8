//! Frames for tests, built and checked by another implementation (`etherparse`).

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6Header, Ipv6RawExtHeader, LinkSlice, NetSlice, PacketBuilder, SingleVlanHeader,
    SlicedPacket, TcpHeader, TransportSlice, VlanHeader, VlanId,
};
use proptest::prelude::*;

/// A TCP segment or UDP datagram in all its variants.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) tags: Vec<u16>,
    pub(crate) v6: bool,
    /// IPv4: words of options; IPv6: whether there are hop-by-hop options.
    pub(crate) options: usize,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) hosts: [u8; 2],
    pub(crate) ports: [u16; 2],
    /// None for UDP.
    pub(crate) tcp: Option<Tcp>,
    pub(crate) payload: Vec<u8>,
}

/// What a TCP segment has beside ports and payload.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    /// As they stand in the header; ACK is added.
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// Words of options.
    pub(crate) options: usize,
}

impl Spec {
    /// Returns a TCP segment over IPv4 without anything special.
    pub(crate) fn tcp(sequence: u32, payload: Vec<u8>) -> Spec {
        Spec {
            macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
            tags: Vec::new(),
            v6: false,
            options: 0,
            tos: 0,
            ttl: 64,
            id: 7,
            dont_fragment: true,
            hosts: [1, 2],
            ports: [49152, 5201],
            tcp: Some(Tcp {
                sequence,
                acknowledgement: 0x0102_0304,
                flags: 0,
                window: 501,
                options: 3,
            }),
            payload,
        }
    }

    /// Returns a UDP datagram over IPv4 without anything special.
    pub(crate) fn udp(payload: Vec<u8>) -> Spec {
        Spec {
            tcp: None,
            ..Spec::tcp(0, payload)
        }
    }

    /// Returns the frame, with all checksums.
    pub(crate) fn build(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.macs[0], self.macs[1]);
        let tag = |id: &u16| VlanId::try_new(*id).unwrap();
        let ip = self.ip();
        let builder = match &self.tags[..] {
            [] => builder.ip(ip),
            [one] => builder.single_vlan(tag(one)).ip(ip),
            [outer, inner, ..] => builder
                .vlan(VlanHeader::Double(etherparse::DoubleVlanHeader {
                    outer: SingleVlanHeader {
                        vlan_id: tag(outer),
                        ..Default::default()
                    },
                    inner: SingleVlanHeader {
                        vlan_id: tag(inner),
                        ..Default::default()
                    },
                }))
                .ip(ip),
        };
        let mut frame = Vec::new();
        match self.tcp_header() {
            Some(header) => builder
                .tcp_header(header)
                .write_to_vec(&mut frame, &self.payload),
            None => builder
                .udp(self.ports[0], self.ports[1])
                .write_to_vec(&mut frame, &self.payload),
        }
        .unwrap();
        frame
    }

    /// Bytes of IP and transport headers.
    pub(crate) fn headers_len(&self) -> usize {
        let ip = if self.v6 {
            40 + 8 * self.options.min(1)
        } else {
            20 + 4 * self.options
        };
        ip + self.tcp.as_ref().map_or(8, |tcp| 20 + 4 * tcp.options)
    }

    fn ip(&self) -> IpHeaders {
        let protocol = if self.tcp.is_some() {
            IpNumber::TCP
        } else {
            IpNumber::UDP
        };
        let [from, to] = self.hosts;
        if self.v6 {
            let address = |host| {
                let mut address = [0; 16];
                address[..2].copy_from_slice(&[0xfd, 7]);
                address[15] = host;
                address
            };
            let header = Ipv6Header {
                traffic_class: self.tos,
                flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
                payload_length: 0,
                next_header: protocol,
                hop_limit: self.ttl,
                source: address(from),
                destination: address(to),
            };
            let extensions = Ipv6Extensions {
                hop_by_hop_options: (self.options > 0)
                    .then(|| Ipv6RawExtHeader::new_raw(protocol, &[1, 4, 0, 0, 0, 0]).unwrap()),
                ..Default::default()
            };
            return IpHeaders::Ipv6(header, extensions);
        }
        let options = vec![1; 4 * self.options];
        let header = Ipv4Header {
            dscp: (self.tos >> 2).try_into().unwrap(),
            ecn: (self.tos & 3).try_into().unwrap(),
            total_len: 0,
            identification: self.id,
            dont_fragment: self.dont_fragment,
            more_fragments: false,
            fragment_offset: IpFragOffset::ZERO,
            time_to_live: self.ttl,
            protocol,
            header_checksum: 0,
            source: [10, 7, 0, from],
            destination: [10, 7, 0, to],
            options: Ipv4Options::try_from(&options[..]).unwrap(),
        };
        IpHeaders::Ipv4(header, Default::default())
    }

    fn tcp_header(&self) -> Option<TcpHeader> {
        let tcp = self.tcp.as_ref()?;
        let mut header = TcpHeader::new(self.ports[0], self.ports[1], tcp.sequence, tcp.window);
        header.acknowledgment_number = tcp.acknowledgement;
        header.ack = true;
        header.fin = tcp.flags & 0x01 != 0;
        header.syn = tcp.flags & 0x02 != 0;
        header.rst = tcp.flags & 0x04 != 0;
        header.psh = tcp.flags & 0x08 != 0;
        header.urg = tcp.flags & 0x20 != 0;
        header.ece = tcp.flags & 0x40 != 0;
        header.cwr = tcp.flags & 0x80 != 0;
        header.set_options_raw(&vec![1; 4 * tcp.options]).unwrap();
        Some(header)
    }
}

/// Any frame with up to `payload_max` bytes of payload.
pub(crate) fn spec(payload_max: usize) -> impl Strategy<Value = Spec> {
    let tcp = (
        any::<u32>(),
        any::<u32>(),
        prop_oneof![Just(0), Just(0x08), Just(0x89), Just(0x41)],
        any::<u16>(),
        0usize..=10,
    )
        .prop_map(|(sequence, acknowledgement, flags, window, options)| Tcp {
            sequence,
            acknowledgement,
            flags,
            window,
            options,
        });
    (
        (
            any::<[u8; 6]>(),
            proptest::collection::vec(0u16..4096, 0..=2),
            any::<bool>(),
            prop_oneof![3 => Just(0), 1 => 0usize..=10],
        ),
        (any::<u8>(), 1u8.., any::<u16>(), any::<bool>()),
        (any::<[u8; 2]>(), any::<[u16; 2]>()),
        proptest::option::weighted(0.7, tcp),
        (0..=payload_max, any::<u64>()),
    )
        .prop_map(|((mac, tags, v6, options), ip, ends, tcp, payload)| Spec {
            macs: [mac, [2, 0, 0, 0, 0, 2]],
            tags,
            v6,
            options,
            tos: ip.0,
            ttl: ip.1,
            id: ip.2,
            dont_fragment: ip.3,
            hosts: ends.0,
            ports: ends.1,
            tcp,
            payload: noise(payload.1, payload.0),
        })
}

/// `len` bytes that look random.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Fails unless the frame is whole and all its checksums are right.
pub(crate) fn assert_valid(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(matches!(packet.link, Some(LinkSlice::Ethernet2(_))));
    let (expected, found) = match (packet.net, packet.transport) {
        (Some(NetSlice::Ipv4(ip)), transport) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let (source, destination) = (header.source, header.destination);
            match transport {
                Some(TransportSlice::Tcp(tcp)) => (
                    tcp.calc_checksum_ipv4(source, destination).unwrap(),
                    tcp.checksum(),
                ),
                Some(TransportSlice::Udp(udp)) => (
                    udp.to_header()
                        .calc_checksum_ipv4_raw(source, destination, udp.payload())
                        .unwrap(),
                    udp.checksum(),
                ),
                other => panic!("{other:?}"),
            }
        }
        (Some(NetSlice::Ipv6(ip)), transport) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            match transport {
                Some(TransportSlice::Tcp(tcp)) => (
                    tcp.calc_checksum_ipv6(source, destination).unwrap(),
                    tcp.checksum(),
                ),
                Some(TransportSlice::Udp(udp)) => (
                    udp.to_header()
                        .calc_checksum_ipv6_raw(source, destination, udp.payload())
                        .unwrap(),
                    udp.checksum(),
                ),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    };
    // Zero and all ones are the same number, and the latter is what may be sent for both.
    assert!(
        expected == found || (expected, found) == (0, 0xffff),
        "checksum {found:#06x}, expected {expected:#06x}"
    );
}
