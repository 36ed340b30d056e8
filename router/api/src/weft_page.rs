//! `/status/weft` for people: the facts that Weave Net's pages have no place for.

use std::fmt::Write;

use serde_json::Value;

/// Draws the page from the same JSON that programs get.
pub(super) fn render(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, status);
    out
}

fn write_page(out: &mut String, status: &Value) -> std::fmt::Result {
    let line = |out: &mut String, label: &str, value: &Value| {
        writeln!(out, "{label:>15}: {}", text(value))
    };
    line(out, "Version", &status["version"])?;
    line(out, "UptimeSeconds", &status["uptime_seconds"])?;
    line(out, "Bridge", &status["bridge"])?;
    line(out, "MTU", &status["mtu"])?;
    writeln!(out)?;
    let data = &status["data"];
    for (label, key) in [
        ("Interface", "interface"),
        ("Queues", "queues"),
        ("TapOffload", "tap_offload"),
        ("UdpGso", "udp_gso"),
        ("UdpGro", "udp_gro"),
        ("Join", "join"),
        ("ReceiveBuffer", "receive_buffer_bytes"),
    ] {
        line(out, label, &data[key])?;
    }
    writeln!(out)?;
    write_addresses(out, &status["ipam"])?;
    write_connections(out, &status["connections"])?;
    writeln!(out)?;
    write_docker(out, &status["docker"])?;
    let counted = [
        ("", &data["counters"]),
        ("drop ", &data["drops"]),
        ("downgrade ", &status["downgrades"]),
    ];
    for (kind, counters) in counted {
        for (name, value) in counters.as_object().into_iter().flatten() {
            if value.as_u64() != Some(0) {
                writeln!(out, "{:>24}: {value}", format!("{kind}{name}"))?;
            }
        }
    }
    Ok(())
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Connections, one a line.
fn write_connections(out: &mut String, connections: &Value) -> std::fmt::Result {
    for connection in connections.as_array().into_iter().flatten() {
        let arrow = if connection["outbound"] == true {
            "->"
        } else {
            "<-"
        };
        let peer = match connection["peer"].as_str() {
            Some(peer) => format!("{peer}({})", text(&connection["nickname"])),
            None => "-".to_owned(),
        };
        write!(
            out,
            "{arrow} {:<21} {:<11} {peer:<37}",
            text(&connection["address"]),
            text(&connection["state"])
        )?;
        for key in [
            "overlay",
            "cipher",
            "mtu",
            "rtt_ms",
            "loss",
            "frames_encrypted",
            "why_not_weft",
            "error",
        ] {
            if let Some(value) = connection.get(key).filter(|value| !value.is_null()) {
                match value.as_str().filter(|value| value.contains(' ')) {
                    Some(value) => write!(out, " {key}={value:?}")?,
                    None => write!(out, " {key}={}", text(value))?,
                }
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The stages of Docker's calls, in the order in which they are shown.
const DOCKER_PARTS: [&str; 8] = [
    "total",
    "list",
    "probe",
    "address",
    "interface",
    "record",
    "own",
    "overhead",
];

/// Returns what the latest calls of Docker took; nothing if there were none.
fn write_docker(out: &mut String, docker: &Value) -> std::fmt::Result {
    for (call, parts) in docker.as_object().into_iter().flatten() {
        write!(out, "{call:>15}: {} calls of Docker;", parts["count"])?;
        for part in DOCKER_PARTS {
            let micros = |figure: &str| parts[part][figure].as_u64().unwrap_or_default();
            let [p50, p99] = ["p50_us", "p99_us"].map(|figure| micros(figure) as f64 / 1e3);
            if p99 > 0.0 {
                write!(out, " {part} {p50:.1}/{p99:.1}")?;
            }
        }
        writeln!(out, " ms (p50/p99)")?;
    }
    if docker.as_object().is_some_and(|calls| !calls.is_empty()) {
        writeln!(out)?;
    }
    Ok(())
}

/// Returns what concerns addresses beyond Weave Net's pages; nothing if none are allocated.
fn write_addresses(out: &mut String, ipam: &Value) -> std::fmt::Result {
    if ipam.is_null() {
        return Ok(());
    }
    let list = |key: &str| ipam[key].as_array().into_iter().flatten();
    let number = |key: &str| ipam[key].as_u64().unwrap_or_default();
    let (used, free, held) = (number("used"), number("free"), number("held_back"));
    write!(out, "      Addresses: {used} in use here, {free} free")?;
    match held {
        0 => writeln!(out)?,
        held => writeln!(out, ", {held} held back until everyone has been heard")?,
    }
    let (leases, unused) = (number("leases"), number("leases_unused"));
    writeln!(
        out,
        "         Leases: {leases} in the mesh, {unused} of them unused"
    )?;
    if let Some(error) = ipam["store_error"].as_str() {
        writeln!(out, "     StoreError: {error}")?;
    }
    for takeover in list("takeovers") {
        let peer = takeover["peer"].as_str().unwrap_or_default();
        let waiting = takeover["waiting"].as_array().into_iter().flatten();
        let waiting: Vec<&str> = waiting.filter_map(Value::as_str).collect();
        let waiting = match waiting.as_slice() {
            [] => "its last messages".to_owned(),
            peers => peers.join(", "),
        };
        writeln!(out, "       Takeover: of {peer}, waiting for {waiting}")?;
    }
    for (label, key) in [
        ("Allocation", "pending_allocates"),
        ("Claim", "pending_claims"),
    ] {
        for entry in list(key) {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let (id, address, why) = (text("id"), text("address"), text("waits_for"));
            writeln!(out, "{label:>15}: {address} for {id} waits: {why}")?;
        }
    }
    for alarm in list("alarms").filter_map(Value::as_str) {
        writeln!(out, "          Alarm: {alarm}")?;
    }
    writeln!(out)
}
