//! Comparison of the wall clocks of neighbours with ours.
//!
//! Nothing depends on these clocks here. But Weave Net routers close connections to peers whose
//! clock is off by more than [`SKEW_SECS_MAX`], so a user should know.

use std::collections::BTreeMap;

use super::entry::UnixSecs;
use super::output::{Event, Output};
use super::table::SKEW_SECS_MAX;
use crate::types::PeerName;

/// The clocks of the peers that sent us gossip.
#[derive(Clone, Debug, Default)]
pub(super) struct Clocks {
    /// Seconds by which each peer's clock is ahead of ours.
    ahead: BTreeMap<PeerName, i64>,
    ours_is_off: bool,
}

impl Clocks {
    /// Handles the timestamp of a message of a known peer. Returns the events that follow.
    ///
    /// Rule: `docs/protocol/names.md#6-weft`.
    pub(super) fn heard(
        &mut self,
        peer: PeerName,
        timestamp: UnixSecs,
        wall: UnixSecs,
    ) -> impl Iterator<Item = Output> + use<> {
        let ahead_secs = timestamp.since(wall);
        let before = self.ahead.insert(peer, ahead_secs);
        let was_off = before.is_some_and(is_off);
        let of_peer = (was_off != is_off(ahead_secs)).then_some(Event::PeerClock {
            peer,
            ahead_secs,
            off: is_off(ahead_secs),
        });

        let median = self.median();
        let ours_is_off = self.ahead.len() >= 2 && is_off(median);
        let of_us = (ours_is_off != self.ours_is_off).then_some(Event::OurClock {
            ahead_secs: median.saturating_neg(),
            off: ours_is_off,
        });
        self.ours_is_off = ours_is_off;
        of_peer.into_iter().chain(of_us).map(Output::Event)
    }

    /// Forgets the clock of a peer.
    pub(super) fn forget(&mut self, peer: PeerName) {
        self.ahead.remove(&peer);
    }

    /// Returns the peers whose clocks are off, and by how many seconds they are ahead of ours.
    pub(super) fn off(&self) -> impl Iterator<Item = (PeerName, i64)> {
        let all = self.ahead.iter().map(|(peer, ahead)| (*peer, *ahead));
        all.filter(|(_, ahead)| is_off(*ahead))
    }

    fn median(&self) -> i64 {
        let mut sorted: Vec<i64> = self.ahead.values().copied().collect();
        sorted.sort_unstable();
        // With an even number of peers, the middle value nearer to zero, so that half of the peers
        // decide nothing.
        let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied();
        let lower = lower.unwrap_or(0);
        if upper.unsigned_abs() < lower.unsigned_abs() {
            upper
        } else {
            lower
        }
    }
}

fn is_off(ahead_secs: i64) -> bool {
    ahead_secs.unsigned_abs() > SKEW_SECS_MAX.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u64) -> PeerName {
        PeerName::from_u64(number).unwrap()
    }

    fn heard(clocks: &mut Clocks, number: u64, ahead: i64) -> Vec<Output> {
        let wall = UnixSecs(1_700_000_000);
        let timestamp = UnixSecs(wall.0.saturating_add(ahead));
        clocks.heard(peer(number), timestamp, wall).collect()
    }

    fn peer_clock(number: u64, ahead_secs: i64, off: bool) -> Output {
        Output::Event(Event::PeerClock {
            peer: peer(number),
            ahead_secs,
            off,
        })
    }

    #[test]
    fn a_clock_is_reported_when_it_goes_off_and_when_it_comes_back() {
        let mut clocks = Clocks::default();
        assert_eq!(heard(&mut clocks, 1, 900), []);
        assert_eq!(heard(&mut clocks, 1, 901), [peer_clock(1, 901, true)]);
        assert_eq!(heard(&mut clocks, 1, 5000), []);
        assert_eq!(clocks.off().collect::<Vec<_>>(), [(peer(1), 5000)]);
        assert_eq!(heard(&mut clocks, 1, 0), [peer_clock(1, 0, false)]);
        assert_eq!(clocks.off().count(), 0);
    }

    #[test]
    fn our_clock_is_off_if_most_peers_agree_on_it() {
        let mut clocks = Clocks::default();
        let ours = |ahead_secs, off| Output::Event(Event::OurClock { ahead_secs, off });
        assert_eq!(heard(&mut clocks, 1, -4000), [peer_clock(1, -4000, true)]);
        assert_eq!(heard(&mut clocks, 2, 0), []);
        let both = [peer_clock(3, -3999, true), ours(3999, true)];
        assert_eq!(heard(&mut clocks, 3, -3999), both);
        assert_eq!(heard(&mut clocks, 4, 1), [ours(0, false)]);
        clocks.forget(peer(2));
        clocks.forget(peer(4));
        assert_eq!(heard(&mut clocks, 1, -4001), [ours(3999, true)]);
    }

    #[test]
    fn extreme_clocks_do_no_harm() {
        let mut clocks = Clocks::default();
        for (number, stamp) in [(1, i64::MIN), (2, i64::MAX), (3, i64::MIN)] {
            let wall = UnixSecs(1_700_000_000);
            assert!(clocks.heard(peer(number), UnixSecs(stamp), wall).count() > 0);
        }
    }
}
