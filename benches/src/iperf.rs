//! The same stream by a load generator that others know: iperf3.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use kernel::netns::Namespace;
use testbed::rig::TrialError;

use crate::daemon::Daemon;

/// Bits per second of one TCP stream, as its receiver counts them.
pub fn tcp(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    duration: Duration,
) -> Result<f64, TrialError> {
    let mut serve = Command::new("iperf3");
    serve
        .args(["--server", "--one-off", "--forceflush"])
        .stdout(Stdio::piped());
    let mut server = Daemon::start(to, &mut serve)?;
    // It prints a line that says that it listens.
    let output = server.take_output().ok_or("iperf3 has no output")?;
    for line in BufReader::new(output).lines() {
        if line?.contains("listening") {
            break;
        }
    }
    let seconds = duration.as_secs().max(1).to_string();
    let address = address.to_string();
    let mut ask = Command::new("iperf3");
    ask.args(["--json", "--client", &address, "--time", &seconds])
        .stdout(Stdio::piped());
    let answer = from.spawn(&mut ask)?.wait_with_output()?;
    let report: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(rate.ok_or_else(|| format!("iperf3 measured nothing: {}", report["error"]))?)
}
