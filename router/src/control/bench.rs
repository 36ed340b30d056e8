//! Measurements towards other routers: who may have one, and what is said about it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use proto::node::DeliveryKind;
use proto::types::PeerName;
use tokio::sync::{oneshot, watch};

use super::{Control, Handle};
use crate::bench::sink::Sink;
use crate::bench::source::{self, Course, Figures, Step};
use crate::bench::{self, CHANNEL, Message, SECONDS_MAX, Stage};

/// How long the other router may take to make its container.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Between looks whether anybody still waits for it.
const ANSWER_POLL: Duration = Duration::from_millis(200);

/// The measurements that run: at most one from here, and one towards here.
#[derive(Default)]
pub(super) struct Benches {
    source: Option<Source>,
    sink: Option<Counting>,
}

/// A measurement from here.
struct Source {
    id: u64,
    peer: PeerName,
    /// Where the other router's answer goes.
    answer: mpsc::Sender<Result<(), String>>,
    step: watch::Receiver<Step>,
}

/// One towards here.
struct Counting {
    id: u64,
    peer: PeerName,
    stop: Arc<AtomicBool>,
    /// What the same peer asked for next, while this one was ending.
    next: Option<Wanted>,
}

/// A sink that is asked for.
#[derive(Clone, Copy)]
struct Wanted {
    id: u64,
    address: Ipv4Addr,
    seconds: u32,
}

/// What comes of a measurement.
pub type Outcome = oneshot::Receiver<Result<Figures, String>>;

impl Control {
    /// Begins to measure towards a peer, by its name or nickname.
    pub fn begin_bench(
        &mut self,
        handle: &Handle,
        peer: &str,
        seconds: u32,
    ) -> Result<Outcome, String> {
        if !(1..=SECONDS_MAX).contains(&seconds) {
            return Err(format!("the time must be from 1 to {SECONDS_MAX} seconds"));
        }
        let dest = self.peer_called(peer)?;
        if self.benches.source.is_some() {
            return Err("another measurement runs, and they would share the machine".into());
        }
        let mut random = fastrand::Rng::new();
        let [ours, theirs] = bench::draw_addresses(&mut random);
        let id = random.u64(..);
        let ask = Message::Ask {
            id,
            address: theirs,
            seconds,
        };
        if !self.tell_bench(dest, &ask) {
            return Err(format!("there is no way to {peer}"));
        }
        let (answer, answered) = mpsc::channel();
        let (step, steps) = watch::channel(Step::Asking);
        let (result, outcome) = oneshot::channel();
        let bridge = self.config.bridge.clone();
        let handle = handle.clone();
        let time = Duration::from_secs(seconds.into());
        thread::spawn(move || {
            let course = Course {
                time,
                tell: &|now| {
                    step.send_replace(now);
                },
                is_given_up: &|| result.is_closed(),
            };
            let measured = measure(&bridge, [ours, theirs], &answered, &course);
            // Whoever asked may have gone away, and the router may stop.
            let _ = result.send(measured);
            let _ = handle.post(Box::new(move |control| control.end_bench(id)));
        });
        self.benches.source = Some(Source {
            id,
            peer: dest,
            answer,
            step: steps,
        });
        Ok(outcome)
    }

    /// What is being measured at the moment, if anything is.
    pub fn bench_step(&self) -> Option<Step> {
        let source = self.benches.source.as_ref()?;
        Some(*source.step.borrow())
    }

    /// Why nothing will come of the measurement that runs, if that is already known.
    pub fn bench_obstacle(&self) -> Option<String> {
        let peer = self.benches.source.as_ref()?.peer;
        let is_gone = self.node.topology().peer(peer).is_none();
        is_gone.then(|| format!("{peer} has left the mesh"))
    }

    fn end_bench(&mut self, id: u64) {
        if let Some(source) = self.benches.source.take_if(|source| source.id == id) {
            self.tell_bench(source.peer, &Message::Done { id });
        }
    }

    /// Takes what came on the channel of measurements. Tells whether the channel is theirs.
    pub(super) fn deliver_to_bench(
        &mut self,
        channel: &str,
        kind: DeliveryKind,
        payload: &[u8],
    ) -> bool {
        if channel != CHANNEL {
            return false;
        }
        let (DeliveryKind::Unicast { source: from }, Some(message)) =
            (kind, Message::parse(payload))
        else {
            return true;
        };
        match message {
            Message::Ask {
                id,
                address,
                seconds,
            } => {
                let wanted = Wanted {
                    id,
                    address,
                    seconds,
                };
                self.begin_sink(from, wanted);
            }
            Message::Ready { id } => self.answer_bench(from, id, Ok(())),
            Message::Refused { id, reason } => self.answer_bench(from, id, Err(reason)),
            Message::Done { id } => {
                let sink = self.benches.sink.as_ref();
                if let Some(sink) = sink.filter(|sink| (sink.peer, sink.id) == (from, id)) {
                    sink.stop.store(true, Relaxed);
                }
            }
        }
        true
    }

    fn answer_bench(&mut self, from: PeerName, id: u64, answer: Result<(), String>) {
        let source = self.benches.source.as_ref();
        if let Some(source) = source.filter(|source| (source.peer, source.id) == (from, id)) {
            // The thread may have given up.
            let _ = source.answer.send(answer);
        }
    }

    /// Makes a container with a sink for a peer.
    fn begin_sink(&mut self, from: PeerName, wanted: Wanted) {
        let is_ending = |sink: &&mut Counting| sink.peer == from && sink.stop.load(Relaxed);
        if let Some(sink) = self.benches.sink.as_mut().filter(is_ending) {
            sink.next = Some(wanted);
            return;
        }
        let Wanted {
            id,
            address,
            seconds,
        } = wanted;
        let Some(handle) = self
            .targets
            .handle()
            .filter(|_| self.benches.sink.is_none())
        else {
            let reason = "it is being measured towards by another router".to_owned();
            self.tell_bench(from, &Message::Refused { id, reason });
            return;
        };
        tracing::info!(peer = %from, "a router measures how fast frames get here");
        let stop = Arc::new(AtomicBool::new(false));
        self.benches.sink = Some(Counting {
            id,
            peer: from,
            stop: Arc::clone(&stop),
            next: None,
        });
        let bridge = self.config.bridge.clone();
        thread::spawn(move || {
            let say = |message: Message| {
                let _ = handle.post(Box::new(move |control| {
                    control.tell_bench(from, &message);
                }));
            };
            if let Err(reason) = serve(&bridge, address, seconds, &stop, &|| {
                say(Message::Ready { id });
            }) {
                say(Message::Refused { id, reason });
            }
            let _ = handle.post(Box::new(move |control| {
                let next = control.benches.sink.take().and_then(|sink| sink.next);
                next.into_iter()
                    .for_each(|next| control.begin_sink(from, next));
            }));
        });
    }

    fn tell_bench(&mut self, peer: PeerName, message: &Message) -> bool {
        let now = self.now();
        self.node
            .send_unicast(now, CHANNEL, peer, &message.encode())
    }

    /// The peer of this name or nickname, which is not ourself.
    fn peer_called(&self, text: &str) -> Result<PeerName, String> {
        let us = self.node.us();
        let mut found = self.node.topology().peers().filter(|peer| {
            peer.name != us && (peer.name.to_string() == text || *peer.nickname == *text.as_bytes())
        });
        match (found.next(), found.next()) {
            (Some(peer), None) => Ok(peer.name),
            (None, _) => Err(format!(
                "no other peer is called {text}; 'weft status peers' lists them"
            )),
            (Some(_), Some(_)) => Err(format!("several peers are called {text}; give a name")),
        }
    }
}

/// Makes our container, waits for the other one, and measures.
fn measure(
    bridge: &str,
    [ours, theirs]: [Ipv4Addr; 2],
    answered: &mpsc::Receiver<Result<(), String>>,
    course: &Course<'_>,
) -> Result<Figures, String> {
    let stage = Stage::open(bridge, ours)?;
    let deadline = Instant::now() + ANSWER_TIME;
    loop {
        match answered.recv_timeout(ANSWER_POLL) {
            Ok(Ok(())) => break,
            Ok(Err(reason)) => return Err(format!("the other router refuses: {reason}")),
            Err(_) if Instant::now() < deadline && !(course.is_given_up)() => {}
            Err(_) => return Err("the other router does not answer; does it run weft?".into()),
        }
    }
    source::measure(&stage, theirs, course)
}

fn serve(
    bridge: &str,
    address: Ipv4Addr,
    seconds: u32,
    stop: &AtomicBool,
    ready: &dyn Fn(),
) -> Result<(), String> {
    let stage = Stage::open(bridge, address)?;
    let sink = Sink::open(&stage)?;
    ready();
    sink.serve(stop, bench::time_max(seconds));
    Ok(())
}
