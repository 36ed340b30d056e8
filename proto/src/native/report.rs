//! The message by which the two ends of a link measure whether datagrams get through, how long they
//! take, and how many are lost.
//!
//! ```text
//!  0  when it was sent, by its sender's clock (8)
//!  8  when the report that it answers was sent, by the other clock (8)
//! 16  for how long the answer waited, in microseconds (4)
//! 20  bytes of the datagram that it answers (4); 0: it answers none
//! 24  datagrams sent so far (8)
//! 32  datagrams received so far (8)
//! 40  flags (1): 1: answer at once
//! 41  zeros, up to the size that is to be tested
//! ```

use std::time::Duration;

use super::wire::{HEADER_BYTES, TAG_BYTES};
use crate::cursor::Cursor;
use crate::types::Time;

/// Size in bytes of a report without padding,.
pub const REPORT_BYTES: usize = 41;
/// Size of the smallest datagram with a report, in bytes.
pub const REPORT_DATAGRAM_BYTES: usize = HEADER_BYTES + REPORT_BYTES + TAG_BYTES;

const FLAG_ANSWER: u8 = 1;

/// A report.
///
/// Format: `docs/native.md#link-quality-and-path-mtu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it was sent, by the clock of its sender.
    pub sent_at: Time,
    /// The latest report from the other end that was not answered before.
    pub answer: Option<Answer>,
    /// Number of datagrams that its sender has sent, under all keys.
    pub sent: u64,
    /// Number of datagrams that its sender has received.
    pub received: u64,
    /// Whether the other end must answer at once.
    pub wants_answer: bool,
}

/// The part of a report that answers another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When that report was sent, as it said.
    pub sent_at: Time,
    /// Time since it arrived.
    pub waited: Duration,
    /// Size of its datagram in bytes; not zero.
    pub bytes: u32,
}

impl Report {
    /// Decodes the body of a report. Returns `None` if it is too short.
    ///
    /// Format: `docs/native.md#link-quality-and-path-mtu`.
    pub fn parse(body: &[u8]) -> Option<Report> {
        let mut cursor = Cursor::new(body);
        let sent_at = Time::from_micros(cursor.u64().ok()?);
        let answered = Time::from_micros(cursor.u64().ok()?);
        let waited = Duration::from_micros(cursor.u32().ok()?.into());
        let bytes = cursor.u32().ok()?;
        let (sent, received) = (cursor.u64().ok()?, cursor.u64().ok()?);
        let flags = cursor.u8().ok()?;
        Some(Report {
            sent_at,
            answer: (bytes != 0).then_some(Answer {
                sent_at: answered,
                waited,
                bytes,
            }),
            sent,
            received,
            wants_answer: flags & FLAG_ANSWER != 0,
        })
    }

    /// Writes the report to `body`, padded with zeros. Returns false if there is no room.
    ///
    /// Format: `docs/native.md#link-quality-and-path-mtu`.
    pub fn write(&self, body: &mut [u8]) -> bool {
        let Some((fields, padding)) = body.split_first_chunk_mut::<REPORT_BYTES>() else {
            return false;
        };
        let (answered, waited, bytes) = match &self.answer {
            Some(answer) => {
                let waited = u32::try_from(answer.waited.as_micros()).unwrap_or(u32::MAX);
                (answer.sent_at.as_micros(), waited, answer.bytes)
            }
            None => (0, 0, 0),
        };
        fields[0..8].copy_from_slice(&self.sent_at.as_micros().to_be_bytes());
        fields[8..16].copy_from_slice(&answered.to_be_bytes());
        fields[16..20].copy_from_slice(&waited.to_be_bytes());
        fields[20..24].copy_from_slice(&bytes.to_be_bytes());
        fields[24..32].copy_from_slice(&self.sent.to_be_bytes());
        fields[32..40].copy_from_slice(&self.received.to_be_bytes());
        fields[40] = if self.wants_answer { FLAG_ANSWER } else { 0 };
        padding.fill(0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let plain = Report {
            sent_at: Time::from_micros(u64::MAX),
            answer: None,
            sent: 1 << 40,
            received: 3,
            wants_answer: false,
        };
        let answer = Answer {
            sent_at: Time::from_micros(77),
            waited: Duration::from_micros(u32::MAX.into()),
            bytes: 1472,
        };
        let answering = Report {
            answer: Some(answer),
            wants_answer: true,
            ..plain
        };
        for report in [plain, answering] {
            for len in [REPORT_BYTES, 500] {
                let mut body = vec![0xaa; len];
                assert!(report.write(&mut body));
                assert!(body[REPORT_BYTES..].iter().all(|byte| *byte == 0));
                assert_eq!(Report::parse(&body), Some(report));
            }
        }
    }

    #[test]
    fn what_is_too_short_is_none() {
        for len in 0..REPORT_BYTES {
            let mut body = vec![1; len];
            assert_eq!(Report::parse(&body), None);
            let report = Report::parse(&[1; REPORT_BYTES]).unwrap();
            assert!(!report.write(&mut body));
        }
    }
}
