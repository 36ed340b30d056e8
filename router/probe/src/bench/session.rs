//! Measurements towards other routers: who may have one, and what is said about it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use proto::node::DeliveryKind;
use proto::types::PeerName;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::sink::Sink;
use super::source::{self, Course, Figures, Step};
use super::{CHANNEL, Message, SECONDS_MAX, Stage};
use control::client::Client;
use control::consumers::Delivery;
use control::view::View;

/// Maximum time for the other router to make its container.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Interval between checks whether anybody still waits for it.
const ANSWER_POLL: Duration = Duration::from_millis(200);
/// Interval between checks whether the other router is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The measurements of this router.
#[derive(Debug)]
pub struct Benches {
    client: Client,
    bridge: String,
    running: Mutex<Running>,
}

/// Why there are no figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// The measurement cannot be had as it was asked for.
    #[error("{0}")]
    Refused(String),
    /// It began and came to nothing.
    #[error("{0}")]
    Failed(String),
}

/// The measurements that run: at most one from here, and one towards here.
#[derive(Debug, Default)]
struct Running {
    source: Option<Source>,
    sink: Option<Counting>,
}

/// A measurement from here.
#[derive(Debug)]
struct Source {
    id: u64,
    peer: PeerName,
    /// Channel for the other router's answer.
    answer: mpsc::Sender<Result<(), String>>,
    step: watch::Receiver<Step>,
}

/// A measurement towards this router.
#[derive(Debug)]
struct Counting {
    id: u64,
    peer: PeerName,
    stop: Arc<AtomicBool>,
    /// The same peer's next request, which arrived while this one was ending.
    next: Option<Wanted>,
}

/// A sink that is asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    id: u64,
    address: Ipv4Addr,
    seconds: u32,
}

impl Benches {
    /// None runs. Containers are attached to `bridge`.
    pub fn new(client: Client, bridge: &str) -> Arc<Benches> {
        Arc::new(Benches {
            client,
            bridge: bridge.to_owned(),
            running: Mutex::default(),
        })
    }

    /// Returns what is being measured at the moment, if anything is.
    pub fn step(&self) -> Option<Step> {
        let running = self.running();
        let source = running.source.as_ref()?;
        Some(*source.step.borrow())
    }

    /// Measures towards a peer, by its name or nickname. Dropping the future ends the measurement.
    pub async fn measure(
        self: &Arc<Self>,
        peer: &str,
        seconds: u32,
    ) -> Result<Figures, BenchError> {
        let (dest, mut outcome) = self.begin(peer, seconds).await?;
        loop {
            tokio::select! {
                figures = &mut outcome => {
                    let early = "the measurement ended early".to_owned();
                    return figures.unwrap_or(Err(BenchError::Failed(early)));
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    let view = self.view().await.map_err(BenchError::Failed)?;
                    if !view.mesh.peers.contains_key(&dest) {
                        return Err(BenchError::Failed(format!("{dest} has left the mesh")));
                    }
                }
            }
        }
    }

    async fn begin(
        self: &Arc<Self>,
        peer: &str,
        seconds: u32,
    ) -> Result<(PeerName, Outcome), BenchError> {
        if !(1..=SECONDS_MAX).contains(&seconds) {
            let reason = format!("the time must be from 1 to {SECONDS_MAX} seconds");
            return Err(BenchError::Refused(reason));
        }
        let view = self.view().await.map_err(BenchError::Failed)?;
        let dest = peer_called(&view, peer).map_err(BenchError::Refused)?;
        let mut random = fastrand::Rng::new();
        let [ours, theirs] = super::draw_addresses(&mut random);
        let id = random.u64(..);
        let (answer, answered) = mpsc::channel();
        let (step, steps) = watch::channel(Step::Asking);
        self.running().claim(Source {
            id,
            peer: dest,
            answer,
            step: steps,
        })?;
        let (result, outcome) = oneshot::channel();
        let ask = Message::Ask {
            id,
            address: theirs,
            seconds,
        };
        let no_way = format!("there is no way to {peer}");
        let benches = Arc::clone(self);
        let time = Duration::from_secs(seconds.into());
        // A task, so that it is carried to its end although its caller goes away.
        tokio::spawn(async move {
            if benches.tell(dest, &ask).await {
                benches
                    .run([ours, theirs], time, answered, step, result)
                    .await;
                benches.end(id).await;
            } else {
                benches.running().source = None;
                // Whoever asked may have gone away.
                let _ = result.send(Err(BenchError::Refused(no_way)));
            }
        });
        Ok((dest, outcome))
    }

    /// Measures on a thread of its own, and waits for that to end.
    async fn run(
        &self,
        addresses: [Ipv4Addr; 2],
        time: Duration,
        answered: mpsc::Receiver<Result<(), String>>,
        step: watch::Sender<Step>,
        result: oneshot::Sender<Result<Figures, BenchError>>,
    ) {
        let (running, over) = oneshot::channel::<()>();
        let bridge = self.bridge.clone();
        thread::spawn(move || {
            let course = Course {
                time,
                tell: &|now| {
                    step.send_replace(now);
                },
                is_given_up: &|| result.is_closed(),
            };
            let measured = measure(&bridge, addresses, &answered, &course);
            // Whoever asked may have gone away, and the router may stop.
            let _ = result.send(measured.map_err(BenchError::Failed));
            drop(running);
        });
        // Ends with the thread, however that ends.
        let _ = over.await;
    }

    async fn end(&self, id: u64) {
        let ended = self.running().source.take_if(|source| source.id == id);
        if let Some(source) = ended {
            self.tell(source.peer, &Message::Done { id }).await;
        }
    }

    /// Takes what other routers say, until the router ends.
    pub async fn follow(self: Arc<Self>, mut deliveries: tokio::sync::mpsc::Receiver<Delivery>) {
        while let Some(delivery) = deliveries.recv().await {
            let DeliveryKind::Unicast { source } = delivery.kind else {
                continue;
            };
            if let Some(message) = Message::parse(&delivery.payload) {
                self.handle(source, message).await;
            }
        }
    }

    async fn handle(self: &Arc<Self>, from: PeerName, message: Message) {
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
                if let Err(reason) = self.begin_sink(from, wanted) {
                    self.tell(from, &Message::Refused { id, reason }).await;
                }
            }
            Message::Ready { id } => self.running().answer(from, id, Ok(())),
            Message::Refused { id, reason } => self.running().answer(from, id, Err(reason)),
            Message::Done { id } => {
                let running = self.running();
                let sink = running.sink.as_ref();
                if let Some(sink) = sink.filter(|sink| (sink.peer, sink.id) == (from, id)) {
                    sink.stop.store(true, Relaxed);
                }
            }
        }
    }

    /// Makes a container with a sink for a peer.
    fn begin_sink(self: &Arc<Self>, from: PeerName, wanted: Wanted) -> Result<(), String> {
        let mut running = self.running();
        match &mut running.sink {
            Some(sink) if sink.peer == from && sink.stop.load(Relaxed) => {
                sink.next = Some(wanted);
                return Ok(());
            }
            Some(_) => return Err("it is being measured towards by another router".to_owned()),
            None => {}
        }
        tracing::info!(peer = %from, "a router measures how fast frames get here");
        let stop = Arc::new(AtomicBool::new(false));
        running.sink = Some(Counting {
            id: wanted.id,
            peer: from,
            stop: Arc::clone(&stop),
            next: None,
        });
        drop(running);
        let (benches, runtime) = (Arc::clone(self), Handle::current());
        thread::spawn(move || {
            let say = |message: Message| {
                runtime.block_on(benches.tell(from, &message));
            };
            let Wanted { id, .. } = wanted;
            if let Err(reason) = serve(&benches.bridge, wanted, &stop, &|| {
                say(Message::Ready { id });
            }) {
                say(Message::Refused { id, reason });
            }
            let next = benches.running().sink.take().and_then(|sink| sink.next);
            let _entered = runtime.enter();
            if let Some(next) = next
                && let Err(reason) = benches.begin_sink(from, next)
            {
                let Wanted { id, .. } = next;
                say(Message::Refused { id, reason });
            }
        });
        Ok(())
    }

    /// Returns true if there is a way to the peer.
    async fn tell(&self, peer: PeerName, message: &Message) -> bool {
        let sent = self.client.send_gossip(CHANNEL, peer, message.encode());
        // A router that stops has no way to anybody.
        sent.await.unwrap_or(false)
    }

    async fn view(&self) -> Result<Arc<View>, String> {
        self.client.view().await.map_err(|error| error.to_string())
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn claim(&mut self, source: Source) -> Result<(), BenchError> {
        if self.source.is_some() {
            let reason = "another measurement runs, and they would share the machine";
            return Err(BenchError::Refused(reason.to_owned()));
        }
        self.source = Some(source);
        Ok(())
    }

    fn answer(&self, from: PeerName, id: u64, answer: Result<(), String>) {
        let source = self.source.as_ref();
        if let Some(source) = source.filter(|source| (source.peer, source.id) == (from, id)) {
            // The thread may have given up.
            let _ = source.answer.send(answer);
        }
    }
}

/// Result of a measurement.
type Outcome = oneshot::Receiver<Result<Figures, BenchError>>;

/// Returns the peer of this name or nickname, which is not ourself.
fn peer_called(view: &View, text: &str) -> Result<PeerName, String> {
    let us = view.mesh.us;
    let mut found = view.mesh.peers.values().filter(|peer| {
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

fn serve(bridge: &str, wanted: Wanted, stop: &AtomicBool, ready: &dyn Fn()) -> Result<(), String> {
    let stage = Stage::open(bridge, wanted.address)?;
    let sink = Sink::open(&stage)?;
    ready();
    sink.serve(stop, super::time_max(wanted.seconds));
    Ok(())
}
