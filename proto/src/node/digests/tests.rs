use super::*;

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

/// Routers that all know each other; what a router knows is a set of facts.
struct World {
    now: u64,
    known: Vec<u32>,
    digests: Vec<Digests>,
    /// Everything that was said: from, to, what.
    said: Vec<(usize, usize, &'static str)>,
}

impl World {
    fn new(known: &[u32]) -> World {
        let digests = |seed| Digests::new(fastrand::Rng::with_seed(seed));
        World {
            now: 1000,
            known: known.to_vec(),
            digests: (0..known.len() as u64).map(digests).collect(),
            said: Vec::new(),
        }
    }

    fn digest(&self, router: usize) -> Digest {
        let mut digest = [0; DIGEST_BYTES];
        digest[..4].copy_from_slice(&self.known[router].to_be_bytes());
        digest
    }

    fn tell_digest(&mut self, from: usize, to: usize) {
        self.said.push((from, to, "digest"));
        let (theirs, ours) = (self.digest(from), self.digest(to));
        self.digests[to].handle_digest(at(self.now), ConnId(from as u64), theirs, ours);
    }

    fn step(&mut self) {
        for router in 0..self.known.len() {
            let ours = self.digest(router);
            while let Some(task) = self.digests[router].next(at(self.now), || ours) {
                self.act(router, task);
            }
        }
        self.now += 1;
    }

    fn act(&mut self, router: usize, task: Task) {
        let from = ConnId(router as u64);
        match task {
            Task::Want(to) => {
                self.said.push((router, to.0 as usize, "want"));
                self.digests[to.0 as usize].handle_want(at(self.now), from);
            }
            Task::TellAll(to) => {
                self.said.push((router, to.0 as usize, "all"));
                let to = to.0 as usize;
                self.known[to] |= self.known[router];
                self.digests[to].handle_entries(at(self.now), from);
            }
            Task::TellDigest(to) => self.tell_digest(router, to.0 as usize),
            Task::Settled => {}
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    fn count(&self, what: &str) -> usize {
        self.said
            .iter()
            .filter(|(_, _, said)| *said == what)
            .count()
    }
}

#[test]
fn two_that_know_the_same_say_nothing() {
    let mut world = World::new(&[5, 5]);
    world.tell_digest(0, 1);
    world.run(10_000);
    assert_eq!(world.said, [(0, 1, "digest")]);
    assert!(world.digests.iter().all(|end| end.poll_timeout().is_none()));
}

#[test]
fn two_that_differ_both_know_all_and_fall_silent() {
    for known in [[1, 2], [1, 3], [3, 1]] {
        let mut world = World::new(&known);
        world.tell_digest(0, 1);
        world.run(10_000);
        assert_eq!(world.known, [known[0] | known[1]; 2]);
        // Nobody is told twice what it wanted.
        assert!(world.count("all") <= 2, "{:?}", world.said);
        assert!(world.digests.iter().all(|end| end.poll_timeout().is_none()));
    }
}

#[test]
fn one_is_asked_at_a_time_and_only_for_what_is_missing() {
    // Eight know all, the ninth nothing: one of them tells it.
    let mut known = [0xff; 9];
    known[8] = 0;
    let mut world = World::new(&known);
    for from in 0..8 {
        world.tell_digest(from, 8);
    }
    world.run(10_000);
    assert_eq!(world.known, [0xff; 9]);
    assert_eq!(world.count("all"), 1, "{:?}", world.said);
}

#[test]
fn a_neighbour_that_does_not_answer_is_given_up() {
    let mut digests = Digests::new(fastrand::Rng::with_seed(1));
    let [ours, theirs] = [[0; DIGEST_BYTES], [1; DIGEST_BYTES]];
    digests.handle_digest(at(0), ConnId(1), theirs, ours);
    digests.handle_digest(at(0), ConnId(2), theirs, ours);
    let mut wants = Vec::new();
    for ms in 0..10_000 {
        while let Some(task) = digests.next(at(ms), || ours) {
            wants.extend(matches!(task, Task::Want(_)).then_some((ms, task)));
        }
    }
    let wanted: Vec<Task> = wants.iter().map(|(_, task)| *task).collect();
    assert_eq!(wanted, [Task::Want(ConnId(1)), Task::Want(ConnId(2))]);
    assert_eq!(digests.poll_timeout(), None);
}

#[test]
fn who_asks_again_and_again_is_answered_once_a_second() {
    let mut digests = Digests::new(fastrand::Rng::with_seed(1));
    let mut answers = 0;
    for ms in 0..10_000 {
        digests.handle_want(at(ms), ConnId(1));
        while let Some(task) = digests.next(at(ms), || [0; DIGEST_BYTES]) {
            assert_eq!(task, Task::TellAll(ConnId(1)));
            answers += 1;
        }
    }
    assert_eq!(answers, 10);
    digests.forget(ConnId(1));
    assert_eq!(digests.poll_timeout(), None);
}

#[test]
fn what_is_said_is_read_again() {
    for exchange in [Exchange::Digest([7; DIGEST_BYTES]), Exchange::Want] {
        let read = Exchange::decode(exchange.kind(), exchange.body());
        assert_eq!(read, Some(exchange));
    }
    assert_eq!(Exchange::decode(KIND_DIGEST, &[7; DIGEST_BYTES - 1]), None);
    assert_eq!(Exchange::decode(9, &[]), None);
}
