use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::client::Client;

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        "slow"
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/slow", get(slow))
        .route("/echo", post(|body: String| async { body }));
    tokio::spawn(Listener::Tcp(listener).serve_within(limits, router));
    address
}

fn short() -> Limits {
    Limits {
        connections_max: 8,
        head_time_max: Duration::from_millis(300),
        body_time_max: Duration::from_millis(300),
        body_bytes_max: 1000,
    }
}

fn client(address: SocketAddr) -> Client {
    Client::new(Endpoint::Tcp(address), PATIENCE)
}

/// Sends the beginning of something, and returns what comes until the connection is closed.
async fn begun(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    // One that is closed while it still had to be read is reset.
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("it is closed");
    text
}

#[tokio::test]
async fn requests_are_answered() {
    let client = client(start(Limits::default()).await);
    assert_eq!(client.get("/").await.unwrap().body, "hello");
    assert_eq!(client.post("/echo", "a=b").await.unwrap().body, "a=b");
}

#[tokio::test]
async fn what_does_not_arrive_is_not_waited_for() {
    let address = start(short()).await;
    assert_eq!(rest(begun(address, "").await).await, "");
    let half = begun(address, "GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert!(!rest(half).await.contains("hello"));
    let idle = begun(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(rest(idle).await.ends_with("hello"), "and closed afterwards");
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    let answer = rest(begun(address, &format!("{head}abc")).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let address = start(short()).await;
    let long = "x".repeat(2000);
    let answer = client(address).post("/echo", &long).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let head = format!(
        "GET / HTTP/1.1\r\nA: {}\r\n\r\n",
        "x".repeat(2 * HEAD_BYTES_MAX)
    );
    let answer = rest(begun(address, &head).await).await;
    assert!(!answer.contains("hello"), "{answer}");
}

/// Whoever keeps all connections of a listener keeps nobody out, and what is being answered is.
#[tokio::test]
async fn half_heads_keep_nobody_out() {
    let limits = Limits {
        head_time_max: PATIENCE,
        ..short()
    };
    let address = start(limits).await;
    let answered = tokio::spawn(async move { client(address).get("/slow").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut kept = Vec::new();
    for _ in 0..40 {
        kept.push(begun(address, "GET / HT").await);
    }
    assert_eq!(client(address).get("/").await.unwrap().body, "hello");
    assert_eq!(answered.await.unwrap().unwrap().body, "slow");
    let mut closed = 0;
    for mut stream in kept {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut byte));
        closed += usize::from(read.await.is_ok());
    }
    assert!(closed >= 40 - limits.connections_max, "{closed}");
}
