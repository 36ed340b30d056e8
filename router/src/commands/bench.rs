//! `weft bench`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{CliError, Output, RouterArgs};
use probe::bench::{SECONDS_MAX, time_max};
use web::client::{Client, encode};

/// Interval between checks of what is being measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Measures latency and throughput to another host over the mesh.
///
/// The routers of both hosts attach a container for the measurement and remove it afterwards.
/// Measured are round trip times, the throughput of one and of four TCP streams, and the rate of
/// 64-byte UDP packets that arrive. Both hosts are under load meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft bench host2                   to the peer with this nickname
  weft bench 02:42:0a:00:00:02       to the peer with this name
  weft bench host2 --json            results for programs")]
pub(crate) struct BenchArgs {
    /// Name or nickname, as in 'weft status peers'
    peer: String,
    /// Seconds for which each figure is measured
    #[arg(
        long,
        default_value_t = 3,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SECONDS_MAX))
    )]
    seconds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: RouterArgs,
}

impl BenchArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        let router = self.router.patient_router(time_max(self.seconds))?;
        let path = format!("/weft/bench/{}", encode(&self.peer));
        let form = format!("seconds={}", self.seconds);
        let header = ("content-type", "application/x-www-form-urlencoded");
        let request = router
            .client
            .request(Method::POST, &path, Some(header), &form);
        tokio::pin!(request);
        let shows = !self.json && std::io::stderr().is_terminal();
        let answer = loop {
            tokio::select! {
                answer = &mut request => break answer?,
                () = tokio::time::sleep(LOOK_INTERVAL), if shows => {
                    show(&step(&router.client).await.unwrap_or_default());
                }
            }
        };
        if shows {
            show("");
        }
        let figures: Value = serde_json::from_str(&answer.ok()?)
            .map_err(|error| CliError::failed(format!("the router's answer: {error}")))?;
        match self.json {
            true => out.json(&figures),
            false => out.text(&text(&figures)),
        }
    }
}

/// Returns what is being measured, for people.
async fn step(client: &Client) -> Option<String> {
    let text = client.get_json("/weft/bench").await.ok()?.ok().ok()?;
    let step: Value = serde_json::from_str(&text).ok()?;
    let what = match step.as_str()? {
        "asking" => "waiting for the other router",
        "reaching" => "waiting for a first answer",
        "round_trip" => "1/4 round trips",
        "one_stream" => "2/4 one TCP stream",
        "streams" => "3/4 four TCP streams",
        _ => "4/4 small packets",
    };
    Some(format!("{what} ..."))
}

/// Replaces the progress line.
fn show(line: &str) {
    // Nobody can be told that telling failed.
    let _ = write!(std::io::stderr().lock(), "\r\x1b[K{line}");
}

fn text(figures: &Value) -> String {
    let number = |key: &str| figures[key].as_f64().unwrap_or_default();
    let lines = [
        (
            "Round trip",
            format!(
                "{:.0} us (1 of 100 above {:.0} us)",
                number("round_trip_us"),
                number("round_trip_p99_us")
            ),
        ),
        ("One stream", bits(number("stream_bits_per_second"))),
        ("Four streams", bits(number("four_streams_bits_per_second"))),
        (
            "64-byte packets",
            format!(
                "{:.0} per second ({:.0} % of those sent were lost)",
                number("packets_per_second"),
                number("packet_loss") * 100.0
            ),
        ),
    ];
    lines
        .map(|(label, value)| format!("{label:>15}: {value}\n"))
        .concat()
}

fn bits(per_second: f64) -> String {
    match per_second {
        giga if giga >= 1e9 => format!("{:.2} Gbit/s", giga / 1e9),
        other => format!("{:.1} Mbit/s", other / 1e6),
    }
}
