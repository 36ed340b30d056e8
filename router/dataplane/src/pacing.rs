//! Holding back packets for receivers with small socket buffers.
//!
//! A Weave Net router reads one packet at a time from a socket whose buffer takes some ninety of
//! full size. One super-frame makes fifty. So packets to such a neighbour leave in bursts of
//! limited size, with a pause after each in which it can read; what exceeds a burst waits here, in
//! order.

use std::collections::VecDeque;
use std::time::Duration;

use proto::sleeve::Channel;
use proto::types::Time;

/// Time that a neighbour is given to read a burst.
pub(super) const PAUSE: Duration = Duration::from_millis(1);
/// Number of bytes of packets that wait for one neighbour. Further ones are dropped: its path is
/// congested.
const WAITING_BYTES_MAX: usize = 512 << 10;
/// Maximum number of packets that wait for one neighbour. Further ones are dropped.
const WAITING_MAX: usize = 512;

/// The packets of one link that wait for their turn.
pub(super) struct Pace {
    burst: u16,
    /// Number that may leave before the next pause.
    credit: u16,
    /// End of the latest pause.
    until: Time,
    waiting: VecDeque<Waiting>,
    /// The bytes of what waits, in order, never wrapping round inside of a packet.
    bytes: Box<[u8]>,
}

/// A packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    start: usize,
    len: usize,
    /// Number of frames in it.
    pub(super) frames: usize,
    /// The way it goes.
    pub(super) channel: Channel,
}

/// There is no room for another packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Congested;

impl Pace {
    /// Bursts of at most `burst` packets.
    pub(super) fn new(burst: u16) -> Pace {
        Pace {
            burst,
            credit: burst,
            until: Time::ZERO,
            waiting: VecDeque::with_capacity(WAITING_MAX),
            bytes: vec![0; WAITING_BYTES_MAX].into(),
        }
    }

    /// Returns true if anything waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns how many frames wait.
    pub(super) fn frames(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.frames).sum()
    }

    /// Returns when what waits may leave.
    pub(super) fn due(&self) -> Time {
        self.until
    }

    /// Returns true if a packet may leave now; if so, it counts.
    pub(super) fn admit(&mut self, now: Time) -> bool {
        self.waiting.is_empty() && self.spend(now)
    }

    /// Keeps a packet that may not leave yet.
    pub(super) fn defer(
        &mut self,
        packet: &[u8],
        frames: usize,
        channel: Channel,
    ) -> Result<(), Congested> {
        let start = self.place(packet.len()).ok_or(Congested)?;
        let space = self.bytes.get_mut(start..start + packet.len());
        space.ok_or(Congested)?.copy_from_slice(packet);
        self.waiting.push_back(Waiting {
            start,
            len: packet.len(),
            frames,
            channel,
        });
        Ok(())
    }

    /// Returns the next packet, with its bytes, if it may leave now and has no more than `room`
    /// bytes.
    pub(super) fn release(&mut self, now: Time, room: usize) -> Option<(Waiting, &[u8])> {
        if self.waiting.front()?.len > room || !self.spend(now) {
            return None;
        }
        let next = self.waiting.pop_front()?;
        let bytes = self.bytes.get(next.start..next.start + next.len)?;
        Some((next, bytes))
    }

    fn spend(&mut self, now: Time) -> bool {
        if now >= self.until {
            self.until = now + PAUSE;
            self.credit = self.burst;
        }
        let allowed = self.credit > 0;
        self.credit = self.credit.saturating_sub(1);
        allowed
    }

    /// Returns where `len` bytes fit behind the last packet without touching the first.
    fn place(&self, len: usize) -> Option<usize> {
        let (Some(first), Some(last)) = (self.waiting.front(), self.waiting.back()) else {
            return (len <= self.bytes.len()).then_some(0);
        };
        if self.waiting.len() == WAITING_MAX {
            return None;
        }
        let end = last.start + last.len;
        if end <= first.start {
            return (end + len <= first.start).then_some(end);
        }
        if end + len <= self.bytes.len() {
            return Some(end);
        }
        (len <= first.start).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_after_a_pause() {
        let mut pace = Pace::new(2);
        assert!(pace.admit(at(10)));
        assert!(pace.admit(at(20)));
        assert!(!pace.admit(at(30)));
        for n in 0..3 {
            pace.defer(&[n; 5], 1, Channel::Df).unwrap();
        }
        assert_eq!((pace.is_waiting(), pace.due()), (true, at(1010)));
        assert_eq!(pace.release(at(1009), 5), None);
        // What comes later does not overtake what waits.
        assert!(!pace.admit(at(1010)));
        let mut released = Vec::new();
        while let Some((_, bytes)) = pace.release(at(1010), 5) {
            released.push(bytes[0]);
        }
        assert_eq!(released, [0, 1]);
        assert_eq!(pace.release(at(2010), 4), None);
        let last = pace.release(at(2010), 5).map(|(_, bytes)| bytes[0]);
        assert_eq!(last, Some(2));
        assert!(!pace.is_waiting());
        assert!(pace.admit(at(2010)));
        assert!(!pace.admit(at(2010)));
    }

    #[test]
    fn packets_that_wait_stay_whole_and_in_order() {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut pace = Pace::new(3);
        let mut expected = VecDeque::new();
        let (mut now, mut refused, mut wrapped) = (0, 0, 0);
        for n in 0..20_000_u32 {
            let packet = vec![n as u8; rng.usize(1..3000)];
            match pace.defer(&packet, n as usize, Channel::NonDf) {
                Ok(()) => expected.push_back(packet),
                Err(Congested) => refused += 1,
            }
            let (first, last) = (pace.waiting.front(), pace.waiting.back());
            wrapped += usize::from(first.map(|w| w.start) > last.map(|w| w.start));
            if rng.u8(..) < 80 {
                now += 1000;
                while let Some((_, bytes)) = pace.release(at(now), 3000) {
                    assert!(bytes == expected.pop_front().unwrap());
                }
            }
        }
        assert_eq!(expected.len(), pace.waiting.len());
        assert!(refused > 0 && wrapped > 0);
    }
}
