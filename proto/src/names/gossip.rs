//! What travels on the channel `nameserver`, in tags 4 and 6: `GossipData` as gob.
//!
//! ```text
//! GossipData   Timestamp int, Entries slice of Entry        unix seconds of sending
//! Entry        ContainerID string, Origin uint, Addr uint32, Hostname string,
//!              Version int, Tombstone int
//! ```
//!
//! Entries are sent sorted by hostname (bytes), each identity once and each name in one spelling:
//! Weave Net routers crash on repeated identities and grow without bound on two spellings. A
//! received entry that violates a rule is left out and counted; only bytes that are not valid gob
//! make the whole message invalid.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::entry::{self, BadEntry, Entry, Key, State, UnixSecs, VERSION_MAX};
use super::table::ENTRIES_MAX;
use crate::gob::{Decoder, Encoder, Error, SliceType, StructType, Type, Value};
use crate::types::PeerName;

/// The name of the channel.
pub const CHANNEL: &str = "nameserver";
/// Maximum size of an encoded payload in bytes; what does not fit goes into further ones. Leaves
/// room for the envelope below the mesh's limit of 10 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;

static GOSSIP_DATA: StructType = StructType {
    name: "GossipData",
    fields: &[("Timestamp", Type::Int), ("Entries", Type::Slice(&ENTRIES))],
};
static ENTRIES: SliceType = SliceType {
    name: "Entries",
    elem: Type::Struct(&ENTRY),
};
static ENTRY: StructType = StructType {
    name: "Entry",
    fields: &[
        (ENTRY_FIELDS[0], Type::String),
        (ENTRY_FIELDS[1], Type::Uint),
        (ENTRY_FIELDS[2], Type::Uint),
        (ENTRY_FIELDS[3], Type::String),
        (ENTRY_FIELDS[4], Type::Int),
        (ENTRY_FIELDS[5], Type::Int),
    ],
};

/// A decoded payload.
///
/// Format: `docs/protocol/names.md#1-3-payload`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GossipData {
    /// The sender's wall clock when it sent this.
    pub timestamp: UnixSecs,
    /// The valid entries, sorted by key; of equal keys the one with the newest state.
    pub entries: Vec<Entry>,
    /// How many entries were left out.
    pub bad: usize,
    /// Why the first of those was left out.
    pub first_bad: Option<BadEntry>,
}

/// Decodes a payload. Bytes after the value are ignored.
///
/// Format: `docs/protocol/names.md#1-3-payload`.
pub fn decode(payload: &[u8]) -> Result<GossipData, Error> {
    let mut out = GossipData::default();
    Decoder::new(payload)
        .value()?
        .structure(&["Timestamp", "Entries"], |field, value| {
            if field == 0 {
                out.timestamp = UnixSecs(value.int()?);
                return Ok(());
            }
            value
                .slice(|element| {
                    let full = out.entries.len() >= ENTRIES_MAX;
                    match read_entry(element)? {
                        Ok(_) if full => out.leave_out(BadEntry::TooMany),
                        Ok(entry) => out.entries.push(entry),
                        Err(reason) => out.leave_out(reason),
                    }
                    Ok(())
                })
                .map(drop)
        })?;
    normalise(&mut out.entries);
    Ok(out)
}

impl GossipData {
    fn leave_out(&mut self, reason: BadEntry) {
        self.bad += 1;
        self.first_bad.get_or_insert(reason);
    }
}

/// Sorts entries by key and keeps each key once, with its newest state.
pub(super) fn normalise(entries: &mut Vec<Entry>) {
    entries.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| b.state.cmp(&a.state)));
    entries.dedup_by(|later, kept| later.key == kept.key);
}

/// Reads one entry. The outer error means malformed gob, the inner one invalid content.
///
/// Format: `docs/protocol/names.md#1-1-fields`.
fn read_entry(value: Value<'_, '_>) -> Result<Result<Entry, BadEntry>, Error> {
    let mut raw = RawEntry::default();
    value.structure(&ENTRY_FIELDS, |field, value| {
        match field {
            0 => raw.container = value.string()?,
            1 => raw.origin = value.uint()?,
            2 => raw.addr = value.uint()?,
            3 => raw.hostname = value.string()?,
            4 => raw.version = value.int()?,
            _ => raw.tombstone = value.int()?,
        }
        Ok(())
    })?;
    Ok(raw.check())
}

/// An unchecked entry of the stream.
#[derive(Default)]
struct RawEntry<'a> {
    container: &'a [u8],
    origin: u64,
    addr: u64,
    hostname: &'a [u8],
    version: i64,
    tombstone: i64,
}

impl RawEntry<'_> {
    fn check(&self) -> Result<Entry, BadEntry> {
        let hostname = str::from_utf8(self.hostname).map_err(|_| BadEntry::Hostname)?;
        let container = str::from_utf8(self.container).map_err(|_| BadEntry::Container)?;
        let origin = PeerName::from_u64(self.origin)
            .filter(|origin| *origin != PeerName::UNKNOWN)
            .ok_or(BadEntry::Origin)?;
        let addr = u32::try_from(self.addr).map_err(|_| BadEntry::Addr)?;
        let version = u32::try_from(self.version)
            .ok()
            .filter(|version| *version <= VERSION_MAX)
            .ok_or(BadEntry::Version)?;
        if self.tombstone < 0 {
            return Err(BadEntry::Tombstone);
        }
        Ok(Entry {
            key: Arc::new(Key::new(hostname, origin, container, Ipv4Addr::from(addr))?),
            state: State {
                version,
                tombstone: UnixSecs(self.tombstone),
            },
        })
    }
}

/// Encodes payloads of at most [`PAYLOAD_BYTES_MAX`] bytes that together carry `entries`. Returns
/// none if there are no entries.
///
/// Format: `docs/protocol/names.md#1-3-payload`.
pub fn encode(timestamp: UnixSecs, entries: Vec<Entry>) -> Vec<Vec<u8>> {
    let entries = for_the_wire(entries);
    let mut payloads = Vec::new();
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let (part, left) = rest.split_at(fitting(rest.iter()));
        payloads.push(write(Encoder::new(), timestamp, part));
        rest = left;
    }
    payloads
}

/// Encodes one payload, even if there are no entries. Entries that do not fit are left out.
///
/// Format: `docs/protocol/names.md#1-3-payload`.
pub fn encode_one(timestamp: UnixSecs, entries: Vec<Entry>) -> Vec<u8> {
    let mut entries = for_the_wire(entries);
    entries.truncate(fitting(entries.iter()));
    write(Encoder::new(), timestamp, &entries)
}

/// Encodes one payload with these type ids. Those of a recorded payload produce the same bytes.
///
/// Format: `docs/protocol/names.md#1-3-payload`.
pub fn encode_with_ids(ids: [i64; 3], timestamp: UnixSecs, entries: Vec<Entry>) -> Vec<u8> {
    write(Encoder::with_ids(ids), timestamp, &for_the_wire(entries))
}

/// Returns how many of the first entries fit one payload; at least one.
pub(super) fn fitting<'a>(entries: impl Iterator<Item = &'a Entry>) -> usize {
    let mut bytes = OVERHEAD_BYTES_MAX;
    let fits = |entry: &&Entry| {
        bytes += ENTRY_BYTES_MAX + entry.key.hostname.len() + entry.key.container.len();
        bytes <= PAYLOAD_BYTES_MAX
    };
    entries.take_while(fits).count().max(1)
}

/// Prepares entries for sending: each identity once, one spelling of each name, in wire order.
///
/// Rule: `docs/protocol/names.md#1-3-payload`.
fn for_the_wire(mut entries: Vec<Entry>) -> Vec<Entry> {
    normalise(&mut entries);
    entry::one_spelling(&mut entries);
    entries.sort_by(|a, b| a.key.cmp_wire(&b.key));
    entries
}

fn write(mut encoder: Encoder, timestamp: UnixSecs, entries: &[Entry]) -> Vec<u8> {
    encoder.value(Type::Struct(&GOSSIP_DATA), |writer| {
        writer.structure(|data| {
            data.int(0, timestamp.0);
            data.slice(1, entries.iter(), |writer, Entry { key, state }| {
                writer.structure(|entry| {
                    entry.string(0, key.container.as_bytes());
                    entry.uint(1, key.origin.as_u64());
                    entry.uint(2, u64::from(key.addr.to_bits()));
                    entry.string(3, key.hostname.as_bytes());
                    entry.int(4, i64::from(state.version));
                    entry.int(5, state.tombstone.0);
                });
            });
        });
    });
    encoder.finish()
}

const ENTRY_FIELDS: [&str; 6] = [
    "ContainerID",
    "Origin",
    "Addr",
    "Hostname",
    "Version",
    "Tombstone",
];
/// Upper bound of the size of a payload's definitions and framing, in bytes.
const OVERHEAD_BYTES_MAX: usize = 512;
/// Upper bound of an entry's size without its texts, in bytes: six field numbers and the end, two
/// lengths of at most two bytes, numbers of 7, 5, 5 and 9 bytes.
const ENTRY_BYTES_MAX: usize = 40;
