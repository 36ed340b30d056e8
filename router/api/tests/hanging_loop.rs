//! The HTTP interface while the control loop works, and while it hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::config::Config;
use api::drawing_slots::DrawingSlots;
use api::routes::{Scope, router};
use api::services::{DockerNetworks, Gateway, Later, Measure, MeasureError, Services};
use boundary::testing::{ManualClock, Memory, Recorder, SeededRandom, Wires};
use control::client::Client;
use control::consumers::Consumers;
use control::control::{Control, Input, Parts};
use control::links::Links;
use control::surroundings::Surroundings;
use ipnet::Ipv4Net;
use proto::node::{Node, NodeConfig};
use proto::types::{PeerName, PeerUid, Time};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Everything that is not asked for in these tests.
struct Nothing;

impl Gateway for Nothing {
    fn expose(&self, _: Ipv4Net, _: bool) -> Later<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn hide(&self, _: Option<Ipv4Net>) -> Later<'_, Result<Vec<Ipv4Net>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl DockerNetworks for Nothing {
    fn has_ended<'a>(&'a self, _: &'a str) -> Later<'a, bool> {
        Box::pin(async { false })
    }

    fn remove(&self) -> Later<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    fn latency(&self) -> Value {
        json!({})
    }
}

impl Measure for Nothing {
    fn step(&self) -> Value {
        Value::Null
    }

    fn measure(&self, _: String, _: u32) -> Later<'_, Result<Value, MeasureError>> {
        Box::pin(async { Err(MeasureError::Refused("no".to_owned())) })
    }
}

fn control(recorder: Recorder) -> Control {
    let us: PeerName = "00:00:00:00:00:01".parse().unwrap();
    let node = NodeConfig::new(us, "host1", PeerUid(7), 1);
    let node = Node::new(node, Time::ZERO);
    let links = Links::new(us, Arc::clone(node.routes()));
    Control::new(Parts {
        node,
        consumers: Consumers::new(),
        addresses: None,
        naming: None,
        links,
        surroundings: Surroundings {
            forwarding: Box::new(recorder),
            connections: Box::new(Wires::default().of("192.0.2.1:6783".parse().unwrap())),
            records: Arc::new(Memory::default()),
            clock: Box::new(ManualClock::default()),
            random: Box::new(SeededRandom::new(1)),
        },
        device: "tap".to_owned(),
    })
}

/// Serves on a port, with a loop that handles requests while it is told to.
async fn serve() -> (std::net::SocketAddr, watch::Sender<bool>) {
    let recorder = Recorder::default();
    let figures = recorder.recorded();
    let mut control = control(recorder);
    let (client, mut inbox) = Client::new();
    let (works, mut working) = watch::channel(true);
    tokio::spawn(async move {
        while let Some(request) = inbox.requests.recv().await {
            control.turn(Input::Request(request));
            working.wait_for(|works| *works).await.unwrap();
        }
    });
    client.first_view().await.unwrap();
    let services = Services {
        client,
        config: Arc::new(Config {
            nickname: "host1".to_owned(),
            port: 6783,
            encryption: false,
            min_version: 1,
            discovery: true,
            trusted_subnets: Vec::new(),
            bridge: "weft".to_owned(),
            mtu: 1376,
            interface: "weft-weft".to_owned(),
            allocates: false,
            names: None,
            plugin: None,
        }),
        figures: Arc::new(figures),
        gateway: Arc::new(Nothing),
        docker: Arc::new(Nothing),
        measure: Arc::new(Nothing),
        name_server: None,
        metrics: Arc::new([]),
        drawing: DrawingSlots::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = router(Scope::Control, services);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, works)
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn pages_are_served_whether_or_not_the_loop_works() {
    let (address, works) = serve().await;
    let pages = ["/status", "/status/peers", "/status/weft", "/metrics"];
    for page in pages {
        assert_eq!(get(address, page).await.0, 200, "{page}");
    }
    let (_, overview) = get(address, "/status").await;
    assert!(overview.contains("          Peers: 1\n"), "{overview}");
    let (_, metrics) = get(address, "/metrics").await;
    assert!(
        metrics.contains("weft_loop_longest_turn_seconds"),
        "{metrics}"
    );
    works.send(false).unwrap();
    // The loop still handles the one request at which it notices.
    get(address, "/status").await;
    for page in pages {
        let begin = Instant::now();
        let (status, answer) = get(address, page).await;
        assert_eq!(status, 200, "{answer}");
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{page} waits for the loop"
        );
        // The wall clock of the test's router stands in the past.
        assert!(answer.to_lowercase().contains("\r\nage: "), "{answer}");
    }
}

#[tokio::test]
async fn a_costly_template_ends_and_holds_up_nothing_else() {
    let (address, _works) = serve().await;
    let range = "%7B%7Brange+%24.Router.Peers%7D%7D%7B%7Brange+%24.Router.CaptureStats%7D%7D";
    let ends = "%7B%7Bend%7D%7D%7B%7Bend%7D%7D";
    let hostile = format!("/report?format={}{}", range.repeat(25), ends.repeat(25));
    let costly = tokio::spawn(async move { get(address, &hostile).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..10 {
        let begin = Instant::now();
        assert_eq!(get(address, "/status").await.0, 200);
        assert_eq!(get(address, "/metrics").await.0, 200);
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "it waits for the template"
        );
    }
    let (status, answer) = costly.await.unwrap();
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("too much work"), "{answer}");
}
