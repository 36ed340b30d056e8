//! Time accounting of Docker's calls: the shares of Docker, of the kernel and of weft.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use host::blocking::blocking;
use report::metrics::{Kind, Metric};

/// Calls of each kind that figures are drawn from: the latest ones.
const CALLS_MAX: usize = 100;

/// A stage of a call: what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Docker's list of containers.
    List,
    /// Inspections, to find out which container is being started.
    Probe,
    /// The allocator, with its disk.
    Address,
    /// The kernel, for interfaces.
    Interface,
    /// The endpoint's record on disk.
    Record,
}

impl Stage {
    const ALL: [(Stage, &'static str); 5] = [
        (Stage::List, "list"),
        (Stage::Probe, "probe"),
        (Stage::Address, "address"),
        (Stage::Interface, "interface"),
        (Stage::Record, "record"),
    ];
}

/// The whole call; the call without any stage; and the call without Docker's list and the kernel.
const TOTAL: &str = "total";
const OWN: &str = "own";
const OVERHEAD: &str = "overhead";

/// Times of one call so far.
#[derive(Clone, Debug)]
pub(crate) struct Spent {
    begun: Instant,
    stages: [Duration; Stage::ALL.len()],
}

impl Spent {
    /// Returns a call that begins now.
    pub(crate) fn begin() -> Spent {
        Spent {
            begun: Instant::now(),
            stages: [Duration::ZERO; Stage::ALL.len()],
        }
    }

    pub(crate) fn add(&mut self, stage: Stage, time: Duration) {
        self.stages[stage as usize] += time;
    }

    /// Waits for something that is a stage of its own.
    pub(crate) async fn on<T>(&mut self, stage: Stage, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = work.await;
        self.add(stage, begun.elapsed());
        done
    }

    /// Lets another thread ask the kernel. Waiting for the thread is our own.
    pub(crate) async fn kernel<T, E>(
        &mut self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        E: ToString + Send + 'static,
    {
        let timed = move || {
            let begun = Instant::now();
            let done = work();
            Ok::<_, String>((done.map_err(|error| error.to_string()), begun.elapsed()))
        };
        let (done, time) = blocking(timed).await?;
        self.add(Stage::Interface, time);
        done
    }

    fn end(&self) -> Finished {
        let total = self.begun.elapsed();
        let stages: Duration = self.stages.iter().sum();
        Finished {
            total,
            own: total.saturating_sub(stages),
            stages: self.stages,
        }
    }
}

/// Total times of one call.
#[derive(Clone, Debug)]
struct Finished {
    total: Duration,
    own: Duration,
    stages: [Duration; Stage::ALL.len()],
}

impl Finished {
    fn overhead(&self) -> Duration {
        let others = self.stages[Stage::List as usize] + self.stages[Stage::Interface as usize];
        self.total.saturating_sub(others)
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        let named = Stage::ALL.iter().zip(self.stages);
        [(TOTAL, self.total)]
            .into_iter()
            .chain(named.map(|((_, name), time)| (*name, time)))
            .chain([(OWN, self.own), (OVERHEAD, self.overhead())])
    }
}

#[derive(Debug, Default)]
struct Calls {
    count: u64,
    latest: VecDeque<Finished>,
}

/// Total times of the calls of each kind.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    calls: Mutex<BTreeMap<String, Calls>>,
}

impl Costs {
    fn calls(&self) -> MutexGuard<'_, BTreeMap<String, Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a call that was answered. Returns its parts in microseconds.
    pub(crate) fn note(&self, call: &str, spent: &Spent) -> String {
        let finished = spent.end();
        let parts = finished
            .parts()
            .map(|(name, time)| (name, time.as_micros()));
        let text: Vec<String> = parts.map(|(name, time)| format!("{name} {time}")).collect();
        let mut all = self.calls();
        let calls = all.entry(call.to_owned()).or_default();
        calls.count += 1;
        if calls.latest.len() == CALLS_MAX {
            calls.latest.pop_front();
        }
        calls.latest.push_back(finished);
        text.join(", ")
    }

    /// Returns for each kind of call: how many there were, and the latest ones' parts in
    /// microseconds.
    pub(crate) fn facts(&self) -> Value {
        let all = self.calls();
        let facts = all.iter().map(|(name, calls)| {
            let mut fact = Map::from_iter([("count".to_owned(), json!(calls.count))]);
            for (part, times) in calls.parts() {
                let value = json!({ "p50_us": at(&times, 50), "p99_us": at(&times, 99) });
                fact.insert(part.to_owned(), value);
            }
            (name.clone(), Value::Object(fact))
        });
        Value::Object(facts.collect())
    }

    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut count = Metric::new(
            "weft_docker_calls_total",
            Kind::Counter,
            "Calls of Docker that were answered, by call.",
        );
        let mut time = Metric::new(
            "weft_docker_call_seconds",
            Kind::Gauge,
            "Time of the latest calls of Docker, by call, part and quantile.",
        );
        for (name, calls) in self.calls().iter() {
            count = count.labelled([("call", name.as_str())], calls.count as f64);
            for (part, times) in calls.parts() {
                for (quantile, percent) in [("0.5", 50), ("0.99", 99)] {
                    let labels = [
                        ("call", name.as_str()),
                        ("part", part),
                        ("quantile", quantile),
                    ];
                    time = time.labelled(labels, at(&times, percent) as f64 / 1e6);
                }
            }
        }
        vec![count, time]
    }
}

impl Calls {
    /// Returns the times of each part in microseconds, sorted.
    fn parts(&self) -> BTreeMap<&'static str, Vec<u64>> {
        let mut parts: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        for (name, time) in self.latest.iter().flat_map(Finished::parts) {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            parts.entry(name).or_default().push(micros);
        }
        parts.values_mut().for_each(|times| times.sort_unstable());
        parts
    }
}

/// Returns the smallest of sorted values that so many of a hundred do not exceed.
fn at(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_stage_has_taken_is_our_own() {
        let mut spent = Spent::begin();
        spent.begun = Instant::now().checked_sub(Duration::from_secs(9)).unwrap();
        spent.add(Stage::List, Duration::from_secs(3));
        spent.add(Stage::Record, Duration::from_secs(1));
        spent.add(Stage::List, Duration::from_secs(1));
        let costs = Costs::default();
        costs.note("Join", &spent);
        let facts = costs.facts();
        let part = |name: &str| facts["Join"][name]["p99_us"].as_u64().unwrap() / 1_000_000;
        assert_eq!(facts["Join"]["count"], 1);
        assert_eq!([part("total"), part("list"), part("record")], [9, 4, 1]);
        assert_eq!([part("own"), part("probe"), part("overhead")], [4, 0, 5]);
    }

    #[test]
    fn figures_are_of_the_latest_calls() {
        let costs = Costs::default();
        for seconds in 1..=200 {
            let mut spent = Spent::begin();
            spent.add(Stage::Address, Duration::from_secs(seconds));
            costs.note("CreateEndpoint", &spent);
        }
        let facts = costs.facts();
        let fact = &facts["CreateEndpoint"];
        assert_eq!(fact["count"], 200);
        assert_eq!(fact["address"]["p50_us"], 150_000_000);
        assert_eq!(fact["address"]["p99_us"], 199_000_000);
        assert_eq!(at(&[], 99), 0);
        assert_eq!(at(&[7], 50), 7);
    }
}
