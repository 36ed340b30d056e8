use super::*;

/// A path and a far end that answers tests up to a size, instantly.
struct Rig {
    search: MtuSearch,
    now: Time,
    passes: u16,
    /// Candidates in order, with how often each was sent.
    trace: Vec<(u16, u16)>,
    /// Sizes sent that were not the candidate.
    extra: Vec<u16>,
}

impl Rig {
    fn new(passes: u16) -> Rig {
        Rig {
            search: MtuSearch::new(86),
            now: Time::ZERO,
            passes,
            trace: Vec::new(),
            extra: Vec::new(),
        }
    }

    fn send(&mut self, sizes: Vec<u16>) {
        let mut queue: std::collections::VecDeque<u16> = sizes.into();
        while let Some(size) = queue.pop_front() {
            if self.search.candidate() == Some(size) {
                match self.trace.last_mut() {
                    Some((last, count)) if *last == size => *count += 1,
                    _ => self.trace.push((size, 1)),
                }
            } else {
                self.extra.push(size);
            }
            if size <= self.passes {
                queue.extend(self.search.handle_verified(self.now, size));
            }
        }
    }

    fn too_big(&mut self, path_mtu: usize) {
        let sizes = self.search.handle_too_big(self.now, path_mtu);
        self.send(sizes);
    }

    fn step(&mut self) -> bool {
        let Some(next) = self.search.poll_timeout() else {
            return false;
        };
        self.now = self.now.max(next);
        let sizes = self.search.handle_timeout(self.now);
        self.send(sizes);
        true
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.search.candidate().is_none() {
                return;
            }
            self.step();
        }
        panic!("search does not end: {:?}", self.search);
    }
}

#[test]
fn the_recorded_search_comes_out() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/sleeve.json");
    let vectors: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let live = &vectors["mtu_search_live"];
    let expected: Vec<(u16, u16)> = live["trace"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            let number = |i: usize| u16::try_from(step[i].as_u64().unwrap()).unwrap();
            (number(0), number(1))
        })
        .collect();
    let mut rig = Rig::new(1000);
    rig.too_big(1500);
    rig.settle();
    assert_eq!(rig.trace, expected);
    assert_eq!(rig.search.mtu() as u64, live["result"].as_u64().unwrap());
    // The sizes beside Weave Net's: once, all below the first candidate.
    let mut once = rig.extra.clone();
    once.dedup();
    assert_eq!(once, rig.extra);
    assert!(rig.extra.iter().all(|size| *size < 1414));
}

#[test]
fn every_path_is_found_exactly() {
    for passes in (68..1500)
        .step_by(7)
        .chain([68, 69, 551, 552, 553, 1413, 1414])
    {
        let mut rig = Rig::new(passes);
        rig.too_big(1500);
        rig.settle();
        assert_eq!(
            rig.search.mtu(),
            usize::from(passes.min(1414)),
            "path that passes {passes}"
        );
        assert!(rig.search.is_verified());
    }
}

#[test]
fn traffic_leaves_an_unanswered_candidate_within_200_ms() {
    let mut rig = Rig::new(1200);
    rig.too_big(1500);
    assert_eq!(rig.search.mtu(), 1414);
    while rig.search.mtu() == 1414 {
        assert!(rig.step());
    }
    assert!(rig.now <= Time::from_micros(200_000), "{:?}", rig.now);
    assert_eq!(rig.search.mtu(), 1114);
    let before = rig.search.mtu();
    while rig.search.candidate().is_some() {
        rig.step();
        assert!(
            rig.search.mtu() >= before,
            "traffic never uses less than what was verified"
        );
        assert!(rig.search.mtu() <= 1200, "nor more");
    }
    assert_eq!(rig.search.mtu(), 1200);
}

#[test]
fn a_kernel_path_below_the_usual_floor_is_used_as_it_is() {
    let mut rig = Rig::new(466);
    rig.too_big(552);
    rig.settle();
    assert_eq!(rig.search.mtu(), 466);
    let mut rig = Rig::new(70);
    rig.too_big(100);
    assert_eq!(rig.search.mtu(), 68);
    rig.settle();
    assert_eq!(rig.search.mtu(), 68);
}

#[test]
fn a_path_that_shrinks_aloud_is_followed_at_once() {
    let mut rig = Rig::new(1414);
    rig.too_big(1500);
    rig.settle();
    rig.passes = 1314;
    rig.too_big(1400);
    rig.settle();
    assert_eq!(rig.search.mtu(), 1314);
}

#[test]
fn a_path_that_shrinks_in_silence_is_noticed_and_its_return_too() {
    let mut rig = Rig::new(1414);
    rig.too_big(1500);
    rig.settle();
    rig.passes = 1200;
    let sizes = rig.search.recheck(rig.now);
    rig.send(sizes);
    rig.settle();
    assert_eq!(rig.search.mtu(), 1200);
    rig.passes = 1300;
    let sizes = rig.search.recheck(rig.now);
    rig.send(sizes);
    rig.settle();
    assert_eq!(rig.search.mtu(), 1300);
    rig.passes = 9000;
    let sizes = rig.search.recheck(rig.now);
    rig.send(sizes);
    rig.settle();
    assert_eq!(rig.search.mtu(), 1414);
}

#[test]
fn an_outage_teaches_nothing() {
    let mut rig = Rig::new(1414);
    rig.too_big(1500);
    rig.settle();
    rig.passes = 0;
    let sizes = rig.search.recheck(rig.now);
    rig.send(sizes);
    rig.settle();
    assert_eq!(rig.search.mtu(), 1414);
}

#[test]
fn a_search_without_any_answer_is_repeated() {
    let mut rig = Rig::new(0);
    rig.too_big(1500);
    rig.settle();
    assert_eq!(rig.search.mtu(), 552);
    assert!(!rig.search.is_verified());
    rig.passes = 1350;
    assert!(rig.step());
    rig.settle();
    assert_eq!(rig.search.mtu(), 1350);
}

#[test]
fn answers_nobody_asked_for_change_nothing() {
    let mut search = MtuSearch::new(86);
    assert!(search.handle_verified(Time::ZERO, 1000).is_empty());
    assert_eq!(search.mtu(), MTU_UNLIMITED);
    let first = search.handle_too_big(Time::ZERO, 1500);
    assert_eq!(first, [1414]);
    for size in [0, 67, 1415, 65535] {
        assert!(search.handle_verified(Time::ZERO, size).is_empty());
    }
    assert_eq!((search.mtu(), search.is_verified()), (1414, false));
}
