//! Answering questions: from the table, by forwarding, or by refusing.
//!
//! | question | answer |
//! |---|---|
//! | a name in our domain, or a single label (the domain is appended) | see below |
//! | - no living entry | NXDOMAIN |
//! | - type A | all addresses, in random order |
//! | - another type | empty |
//! | PTR of an IPv4 reverse name | the name of the address; unknown: forward |
//! | other types, other names in in-addr.arpa | NXDOMAIN |
//! | zone transfers | REFUSED |
//! | everything else | forward |
//!
//! Responses are written directly into a buffer: header and question as received, then records with
//! uncompressed names and without an EDNS record.

use std::net::Ipv4Addr;

use fastrand::Rng;
use ipnet::Ipv4Net;

use super::domain::{Domain, LABEL_BYTES_MAX, NAME_BYTES_MAX};
use super::index::Index;
use super::message::{self, Query, QueryError, Rcode, TCP_BYTES_MAX, class, rtype};

/// The zone for which this server answers.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The domain whose names are answered from the index.
    pub domain: Domain,
    /// Time for which answers may be cached, in seconds.
    pub ttl_secs: u32,
    /// Addresses whose names are not looked up elsewhere: the range of our own network.
    pub private: Vec<Ipv4Net>,
}

/// Maximum number of bytes of a response over UDP, whatever the client takes; the rest is asked for
/// over TCP. So much passes everywhere in one packet, and whoever asks in another's name sends that
/// one no flood (DNS flag day 2020).
pub const UDP_ANSWER_BYTES_MAX: usize = 1232;

/// Transport of a query, which limits the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// In a stream.
    Tcp,
}

impl Transport {
    /// Returns the maximum size of a response to `query`, in bytes.
    ///
    /// Rule: `docs/protocol/names.md#4-2-size`.
    pub fn limit(self, query: &Query<'_>) -> usize {
        match self {
            Transport::Udp => query.udp_limit().min(UDP_ANSWER_BYTES_MAX),
            Transport::Tcp => TCP_BYTES_MAX,
        }
    }
}

/// Decision about a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'i> {
    /// These addresses, at least one.
    Addresses(&'i [Ipv4Addr]),
    /// This name, as labels.
    Pointer(&'i [u8]),
    /// The name exists, but has no record of the type asked for.
    Empty,
    /// Ask others.
    Forward,
    /// No.
    Refuse(Rcode),
}

impl Zone {
    /// Decides on a query by what `index` holds.
    ///
    /// Rule: `docs/protocol/names.md#4-1-answers`.
    pub fn decide<'i>(&self, index: &'i Index, query: &Query<'_>) -> Decision<'i> {
        let name = query.name();
        if self.domain.contains_wire(name) {
            return decide_local(index, query, name);
        }
        if let Some(reverse) = name.strip_suffix(IN_ADDR_ARPA)
            && self.ends_at_label(name, reverse.len())
        {
            return self.decide_reverse(index, query, reverse);
        }
        let first = usize::from(name.first().copied().unwrap_or(0));
        if first != 0 && name.len() == first + 2 {
            let mut full = [0; LABEL_BYTES_MAX + 1 + NAME_BYTES_MAX];
            let (head, tail) = full.split_at_mut(first + 1);
            head.copy_from_slice(&name[..=first]);
            let domain = self.domain.wire();
            tail[..domain.len()].copy_from_slice(domain);
            return decide_local(index, query, &full[..first + 1 + domain.len()]);
        }
        match query.qtype() {
            _ if query.questions() != 1 => Decision::Refuse(Rcode::FormErr),
            rtype::AXFR | rtype::IXFR => Decision::Refuse(Rcode::Refused),
            _ => Decision::Forward,
        }
    }

    /// Rule: `docs/protocol/names.md#4-1-answers`.
    fn decide_reverse<'i>(
        &self,
        index: &'i Index,
        query: &Query<'_>,
        reverse: &[u8],
    ) -> Decision<'i> {
        let addr = match read_reverse(reverse) {
            Some(addr) if query.questions() == 1 && query.qtype() == rtype::PTR => addr,
            _ => return Decision::Refuse(Rcode::NxDomain),
        };
        match index.name_of(addr) {
            Some(name) => Decision::Pointer(name),
            None if self.private.iter().any(|net| net.contains(&addr)) => {
                Decision::Refuse(Rcode::NxDomain)
            }
            None => Decision::Forward,
        }
    }

    /// Returns true if byte `end` of a name starts a label.
    fn ends_at_label(&self, name: &[u8], end: usize) -> bool {
        let mut at = 0;
        while at < end {
            at += 1 + usize::from(name[at]);
        }
        at == end
    }
}

/// Rule: `docs/protocol/names.md#4-1-answers`.
fn decide_local<'i>(index: &'i Index, query: &Query<'_>, name: &[u8]) -> Decision<'i> {
    if query.questions() != 1 {
        return Decision::Refuse(Rcode::NxDomain);
    }
    if !matches!(query.qclass(), class::IN | class::ANY) {
        return Decision::Refuse(Rcode::Refused);
    }
    match index.addresses(name) {
        [] => Decision::Refuse(Rcode::NxDomain),
        addresses if query.qtype() == rtype::A => Decision::Addresses(addresses),
        _ => Decision::Empty,
    }
}

/// Reads the address of four labels, last byte first.
fn read_reverse(mut labels: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let (&len, rest) = labels.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(len))?;
        let plain = label.iter().all(u8::is_ascii_digit) && !(len > 1 && label[0] == b'0');
        *octet = str::from_utf8(label).ok().filter(|_| plain)?.parse().ok()?;
        labels = rest;
    }
    labels.is_empty().then_some(octets.into())
}

/// Result of handling a packet.
#[derive(Clone)]
pub enum Reply<'a> {
    /// The buffer holds the response.
    Answered(Rcode),
    /// The query must be forwarded.
    Forward(Box<Query<'a>>),
    /// The packet must not be answered.
    Ignored,
}

/// Answers queries. Each thread has its own, with its buffers and random number generator.
#[derive(Debug)]
pub struct Responder {
    zone: Zone,
    rng: Rng,
    shuffled: Vec<Ipv4Addr>,
}

impl Responder {
    /// Creates a responder for a zone.
    pub fn new(zone: Zone, rng: Rng) -> Responder {
        Responder {
            zone,
            rng,
            shuffled: Vec::new(),
        }
    }

    /// Decides on a packet and writes the response into `out`, whose content it replaces.
    pub fn respond<'a>(
        &mut self,
        index: &Index,
        packet: &'a [u8],
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply<'a> {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(error) => return reject(packet, error, out),
        };
        let limit = transport.limit(&query);
        match self.zone.decide(index, &query) {
            Decision::Addresses(addresses) => self.write_addresses(&query, addresses, limit, out),
            Decision::Pointer(name) => self.write_pointer(&query, name, limit, out),
            Decision::Empty => query.start_response(Rcode::NoError, true, out),
            Decision::Forward => return Reply::Forward(Box::new(query)),
            Decision::Refuse(rcode) => {
                query.failure(rcode, out);
                return Reply::Answered(rcode);
            }
        }
        Reply::Answered(Rcode::NoError)
    }

    /// Format: `docs/protocol/names.md#4-1-answers`.
    fn write_addresses(
        &mut self,
        query: &Query<'_>,
        addresses: &[Ipv4Addr],
        limit: usize,
        out: &mut Vec<u8>,
    ) {
        query.start_response(Rcode::NoError, true, out);
        let name = query.name_as_sent();
        let record_bytes = name.len() + RECORD_HEAD_BYTES + 4;
        let room = limit.saturating_sub(out.len()) / record_bytes;
        let count = addresses.len().min(room);
        self.shuffled.clear();
        self.shuffled.extend_from_slice(addresses);
        for place in 0..count {
            let other = self.rng.usize(place..self.shuffled.len());
            self.shuffled.swap(place, other);
            self.write_record_head(name, rtype::A, 4, out);
            out.extend_from_slice(&self.shuffled[place].octets());
        }
        message::set_answers(out, u16::try_from(count).unwrap_or(u16::MAX));
        if count < addresses.len() {
            message::set_truncated(out);
        }
    }

    fn write_pointer(&self, query: &Query<'_>, target: &[u8], limit: usize, out: &mut Vec<u8>) {
        query.start_response(Rcode::NoError, true, out);
        let name = query.name_as_sent();
        if out.len() + name.len() + RECORD_HEAD_BYTES + target.len() > limit {
            message::set_truncated(out);
            return;
        }
        let len = u16::try_from(target.len()).unwrap_or(u16::MAX);
        self.write_record_head(name, rtype::PTR, len, out);
        out.extend_from_slice(target);
        message::set_answers(out, 1);
    }

    fn write_record_head(&self, name: &[u8], rtype: u16, len: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(name);
        out.extend_from_slice(&rtype.to_be_bytes());
        out.extend_from_slice(&class::IN.to_be_bytes());
        out.extend_from_slice(&self.zone.ttl_secs.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
    }
}

fn reject<'a>(packet: &[u8], error: QueryError, out: &mut Vec<u8>) -> Reply<'a> {
    message::reject(packet, error, out).map_or(Reply::Ignored, Reply::Answered)
}

/// Size of a record between its name and its data in bytes.
const RECORD_HEAD_BYTES: usize = 10;
const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\0";
