use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The rule as it is written: of each window, what was seen.
#[derive(Default)]
struct Model {
    window: u64,
    current: BTreeSet<u64>,
    previous: BTreeSet<u64>,
}

impl Model {
    fn accept(&mut self, sequence: u64) -> bool {
        let window = sequence >> 20;
        if window + 1 < self.window {
            return false;
        }
        if window + 1 == self.window {
            return self.previous.insert(sequence);
        }
        if window == self.window + 1 {
            self.previous = std::mem::take(&mut self.current);
        } else if window > self.window {
            self.previous.clear();
            self.current.clear();
        }
        self.window = window;
        self.current.insert(sequence)
    }
}

proptest! {
    /// Numbers around the edges of a few windows, in any order and repeated, with jumps.
    #[test]
    fn windows_follow_the_rule(steps in proptest::collection::vec((0u64..6, 0u64..70, any::<bool>(), any::<bool>()), 1..200)) {
        let mut replay = Replay::new();
        let mut models = [Model::default(), Model::default()];
        for (window, offset, from_end, df) in steps {
            let offset = if from_end { WINDOW - 1 - offset } else { offset };
            let sequence = (window << 20) + offset;
            let counter = if df { sequence | COUNTER_DF } else { sequence };
            let expected = models[usize::from(df)].accept(sequence);
            prop_assert_eq!(replay.accept(counter), expected);
        }
    }
}

#[test]
fn a_whole_window_is_remembered_and_forgotten() {
    let mut replay = Replay::new();
    assert!((0..WINDOW).all(|sequence| replay.accept(sequence)));
    assert!(replay.accept(WINDOW));
    assert!(!(0..WINDOW).any(|sequence| replay.accept(sequence)));
    // Two windows on, everything is new again but too old.
    assert!(replay.accept(2 * WINDOW) && replay.accept(3 * WINDOW));
    assert!(!replay.accept(WINDOW + 1));
    assert!((2 * WINDOW + 1..3 * WINDOW).all(|sequence| replay.accept(sequence)));
}

#[test]
fn the_last_number_of_all_is_accepted_once() {
    let mut replay = Replay::new();
    for counter in [u64::MAX, !COUNTER_DF] {
        assert!(replay.accept(counter));
        assert!(!replay.accept(counter));
        assert!(replay.accept(counter - 1));
        assert!(!replay.accept(counter & COUNTER_DF));
    }
}
