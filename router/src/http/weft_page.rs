//! `/status/weft` for people: the facts that the original's pages have no place for.

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
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
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
    for connection in status["connections"].as_array().into_iter().flatten() {
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
    writeln!(out)?;
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
