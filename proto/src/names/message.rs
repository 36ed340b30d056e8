//! DNS messages: decoding queries, encoding responses, and the checks that a forwarder needs.
//!
//! ```text
//! header     id (2) | QR 1, opcode 4, AA 1, TC 1, RD 1 | RA 1, zero 3, rcode 4
//!            | counts of questions, answers, authorities, additional records (2 each)
//! question   name | type (2) | class (2)
//! record     name | type (2) | class (2) | TTL (4) | length (2) | data
//! ```
//!
//! (RFC 1035 section 4.) Only what is needed for an answer is read: the first question, and the
//! sizes of everything else. Names have at most 255 bytes and pointers are not followed, so reading
//! takes time in proportion to the length of a message.

use crate::cursor::{Cursor, EndOfInput};

use super::domain::{LABEL_BYTES_MAX, NAME_BYTES_MAX};

/// Size of the header of a message in bytes.
pub const HEADER_BYTES: usize = 12;
/// Maximum size of a response over UDP in bytes, unless the query allows more (RFC 1035 section
/// 2.3.4).
pub const UDP_BYTES_DEFAULT: u16 = 512;
/// Maximum UDP payload over IPv4 in bytes.
pub const UDP_BYTES_MAX: usize = 65_507;
/// Maximum size of a message over TCP in bytes; its length field has 16 bits.
pub const TCP_BYTES_MAX: usize = 65_535;

/// Types of records that are used here.
pub mod rtype {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A name for an address.
    pub const PTR: u16 = 12;
    /// The options of EDNS.
    pub const OPT: u16 = 41;
    /// A zone transfer by changes.
    pub const IXFR: u16 = 251;
    /// A zone transfer.
    pub const AXFR: u16 = 252;
}

/// Classes of records.
pub mod class {
    /// The internet.
    pub const IN: u16 = 1;
    /// Any class, in questions.
    pub const ANY: u16 = 255;
}

/// The result that a response reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rcode {
    /// Success, even if there is no record.
    NoError = 0,
    /// The query could not be read.
    FormErr = 1,
    /// The server failed.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// The kind of query is unknown.
    NotImp = 4,
    /// The server refuses.
    Refused = 5,
}

/// Why a packet is not a valid query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too short for a header, or itself a response. Must not be answered.
    #[error("not a query")]
    NotAQuery,
    /// Must be answered with [`Rcode::FormErr`].
    #[error("malformed query")]
    Malformed,
    /// Must be answered with [`Rcode::NotImp`].
    #[error("unknown kind of query")]
    Opcode,
}

impl From<EndOfInput> for QueryError {
    fn from(_: EndOfInput) -> QueryError {
        QueryError::Malformed
    }
}

/// A name as labels in lower case.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    len: usize,
}

impl Name {
    /// Returns the labels with their lengths, and the closing zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Reads a name without pointers.
    fn read(input: &mut Cursor<'_>) -> Result<Name, QueryError> {
        let mut name = Name {
            bytes: [0; NAME_BYTES_MAX],
            len: 0,
        };
        loop {
            let len = input.u8()?;
            if usize::from(len) > LABEL_BYTES_MAX {
                return Err(QueryError::Malformed);
            }
            let label = input.take(usize::from(len))?;
            let end = name.len + 1 + label.len();
            let Some(place) = name.bytes.get_mut(name.len..end) else {
                return Err(QueryError::Malformed);
            };
            place[0] = len;
            place[1..].copy_from_slice(label);
            place[1..].make_ascii_lowercase();
            name.len = end;
            if len == 0 {
                return Ok(name);
            }
        }
    }
}

/// A query that was read.
#[derive(Clone)]
pub struct Query<'a> {
    packet: &'a [u8],
    name: Name,
    qtype: u16,
    qclass: u16,
    questions: u16,
    question_end: usize,
    udp_bytes: Option<u16>,
}

impl<'a> Query<'a> {
    /// Parses a query. Bytes after its last record are ignored.
    ///
    /// Format: `docs/protocol/names.md#4-1-answers`.
    pub fn parse(packet: &'a [u8]) -> Result<Query<'a>, QueryError> {
        let mut input = Cursor::new(packet);
        let header = input
            .array::<HEADER_BYTES>()
            .map_err(|_| QueryError::NotAQuery)?;
        if header[2] & QR != 0 {
            return Err(QueryError::NotAQuery);
        }
        if header[2] & OPCODE != 0 {
            return Err(QueryError::Opcode);
        }
        let [questions, answers, authorities, additional] = counts(&header);
        if questions == 0 {
            return Err(QueryError::Malformed);
        }
        let name = Name::read(&mut input)?;
        let (qtype, qclass) = (input.u16()?, input.u16()?);
        let question_end = packet.len() - input.len();
        for _ in 1..questions {
            skip_name(&mut input)?;
            input.take(4)?;
        }
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            Record::read(&mut input)?;
        }
        let mut udp_bytes = None;
        for _ in 0..additional {
            let record = Record::read(&mut input)?;
            if record.rtype == rtype::OPT && udp_bytes.replace(record.class).is_some() {
                return Err(QueryError::Malformed);
            }
        }
        Ok(Query {
            packet,
            name,
            qtype,
            qclass,
            questions,
            question_end,
            udp_bytes,
        })
    }

    /// Returns all bytes of the query.
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Returns the id, which the response must repeat.
    pub fn id(&self) -> u16 {
        id_of(self.packet)
    }

    /// Returns the queried name.
    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// Returns the queried name, with its letters as sent.
    pub(super) fn name_as_sent(&self) -> &'a [u8] {
        &self.packet[HEADER_BYTES..self.question_end - 4]
    }

    /// Returns the queried type of record.
    pub fn qtype(&self) -> u16 {
        self.qtype
    }

    /// Returns the queried class.
    pub fn qclass(&self) -> u16 {
        self.qclass
    }

    /// Returns the number of questions; only the first can be read.
    pub fn questions(&self) -> u16 {
        self.questions
    }

    /// Returns the maximum size of a response over UDP, in bytes.
    ///
    /// Rule: `docs/protocol/names.md#4-2-size`.
    pub fn udp_limit(&self) -> usize {
        usize::from(self.udp_bytes.unwrap_or(UDP_BYTES_DEFAULT)).min(UDP_BYTES_MAX)
    }

    /// Starts a response: header and first question. Without records it is complete.
    pub(super) fn start_response(&self, rcode: Rcode, authoritative: bool, out: &mut Vec<u8>) {
        let aa = if authoritative { AA } else { 0 };
        start_response(self.packet, rcode, aa, out);
        out[5] = 1;
        out.extend_from_slice(&self.packet[HEADER_BYTES..self.question_end]);
    }

    /// Encodes a response that only reports a failure.
    pub fn failure(&self, rcode: Rcode, out: &mut Vec<u8>) {
        self.start_response(rcode, false, out);
    }

    /// Returns true if `response` answers this query, sent with `id`: it must have the same
    /// question, ignoring case. A failure may consist of its header only.
    ///
    /// Rule: `docs/protocol/names.md#4-3-forwarding`.
    pub fn is_answered_by(&self, id: u16, response: &[u8]) -> bool {
        let Some(header) = response.first_chunk::<HEADER_BYTES>() else {
            return false;
        };
        if id_of(header) != id || header[2] & QR == 0 || header[2] & OPCODE != 0 {
            return false;
        }
        if counts(header) == [0; 4] {
            return header[3] & RCODE != 0;
        }
        let question = &self.packet[HEADER_BYTES..self.question_end];
        let (name, kind) = question.split_at(question.len() - 4);
        let Some(theirs) = response.get(HEADER_BYTES..self.question_end) else {
            return false;
        };
        let (their_name, their_kind) = theirs.split_at(name.len());
        header[4..6] == [0, 1] && their_name.eq_ignore_ascii_case(name) && their_kind == kind
    }
}

/// Encodes a response without a question, to a packet that could not be parsed. Returns `None` if
/// the packet must not be answered.
///
/// Format: `docs/protocol/names.md#4-1-answers`.
pub fn reject(packet: &[u8], error: QueryError, out: &mut Vec<u8>) -> Option<Rcode> {
    let rcode = match error {
        QueryError::NotAQuery => return None,
        QueryError::Malformed => Rcode::FormErr,
        QueryError::Opcode => Rcode::NotImp,
    };
    start_response(packet, rcode, 0, out);
    Some(rcode)
}

/// Writes a header with no counts.
fn start_response(packet: &[u8], rcode: Rcode, flags: u8, out: &mut Vec<u8>) {
    let copied = packet.get(2).map_or(0, |flags| flags & (OPCODE | RD));
    out.clear();
    out.extend_from_slice(&id_of(packet).to_be_bytes());
    out.extend_from_slice(&[
        QR | copied | flags,
        RA | rcode as u8,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
}

/// Returns the id of a message that has a header.
pub fn id_of(message: &[u8]) -> u16 {
    message
        .first_chunk()
        .map_or(0, |id| u16::from_be_bytes(*id))
}

/// Replaces the id of a message.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

/// Returns true if a response is truncated.
pub fn is_truncated(response: &[u8]) -> bool {
    response.get(2).is_some_and(|flags| flags & TC != 0)
}

/// Returns the result code of a response.
pub fn rcode_of(response: &[u8]) -> u8 {
    response.get(3).map_or(0, |flags| flags & RCODE)
}

/// Marks a response of ours as truncated.
pub(super) fn set_truncated(response: &mut [u8]) {
    if let Some(flags) = response.get_mut(2) {
        *flags |= TC;
    }
}

/// Writes the number of answers.
pub(super) fn set_answers(response: &mut [u8], count: u16) {
    if let Some(place) = response.get_mut(6..8) {
        place.copy_from_slice(&count.to_be_bytes());
    }
}

/// Cuts a response to `limit` bytes: keeps the questions, as many answers as fit, and the options
/// of EDNS, and marks it as truncated. Pointers in names lead backwards, so what is kept can be
/// parsed. A response that cannot be parsed loses all its records.
///
/// Rule: `docs/protocol/names.md#4-2-size`.
pub fn cut_response(response: &mut Vec<u8>, limit: usize) {
    if response.len() <= limit {
        return;
    }
    let (end, answers, opt) = find_cut(response, limit).unwrap_or((HEADER_BYTES, None, None));
    let opt: Vec<u8> = opt
        .map(|(start, end)| response[start..end].to_vec())
        .unwrap_or_default();
    response.truncate(end);
    response.extend_from_slice(&opt);
    set_truncated(response);
    let Some(counts) = response.get_mut(4..HEADER_BYTES) else {
        return;
    };
    let questions = answers.map_or(0, |_| 1);
    let numbers = [
        questions,
        answers.unwrap_or(0),
        0,
        u16::from(!opt.is_empty()),
    ];
    for (place, number) in counts.chunks_exact_mut(2).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

type Cut = (usize, Option<u16>, Option<(usize, usize)>);

/// Finds where to cut: the end of the last answer that fits, the number of answers up to there,
/// and the span of the OPT record.
fn find_cut(response: &[u8], limit: usize) -> Result<Cut, QueryError> {
    let mut input = Cursor::new(response);
    let [questions, answers, authorities, additional] = counts(&input.array()?);
    if questions != 1 {
        return Err(QueryError::Malformed);
    }
    skip_name(&mut input)?;
    input.take(4)?;
    let mut ends = Vec::with_capacity(usize::from(answers).min(response.len() / RECORD_BYTES_MIN));
    let mut end = response.len() - input.len();
    let question_end = end;
    for _ in 0..answers {
        Record::read(&mut input)?;
        end = response.len() - input.len();
        ends.push(end);
    }
    for _ in 0..authorities {
        Record::read(&mut input)?;
    }
    let mut opt = None;
    for _ in 0..additional {
        let start = response.len() - input.len();
        if Record::read(&mut input)?.rtype == rtype::OPT {
            opt = Some((start, response.len() - input.len()));
        }
    }
    let opt_bytes = opt.map_or(0, |(start, end)| end - start);
    let fitting = ends.partition_point(|end| end + opt_bytes <= limit);
    let kept = fitting
        .checked_sub(1)
        .map_or(question_end, |last| ends[last]);
    let opt = opt.filter(|_| kept + opt_bytes <= limit);
    Ok((kept, Some(u16::try_from(fitting).unwrap_or(u16::MAX)), opt))
}

/// The parts of a record that matter.
struct Record {
    rtype: u16,
    class: u16,
}

impl Record {
    fn read(input: &mut Cursor<'_>) -> Result<Record, QueryError> {
        skip_name(input)?;
        let (rtype, class, _ttl) = (input.u16()?, input.u16()?, input.u32()?);
        let len = input.u16()?;
        input.take(usize::from(len))?;
        Ok(Record { rtype, class })
    }
}

/// Skips a name that may end in a pointer.
fn skip_name(input: &mut Cursor<'_>) -> Result<(), QueryError> {
    let mut bytes = 0;
    loop {
        let len = input.u8()?;
        match len >> 6 {
            0 => {
                input.take(usize::from(len))?;
                bytes += 1 + usize::from(len);
                if bytes > NAME_BYTES_MAX {
                    return Err(QueryError::Malformed);
                }
                if len == 0 {
                    return Ok(());
                }
            }
            3 => {
                input.u8()?;
                return Ok(());
            }
            _ => return Err(QueryError::Malformed),
        }
    }
}

fn counts(header: &[u8; HEADER_BYTES]) -> [u16; 4] {
    let at = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
    [at(4), at(6), at(8), at(10)]
}

/// A record with the root as name and no data.
const RECORD_BYTES_MIN: usize = 11;
/// Third byte of the header.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
/// Fourth byte of the header.
const RA: u8 = 0x80;
const RCODE: u8 = 0x0f;
