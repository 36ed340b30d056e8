//! Details of each connection, beyond what Weave Net reports.

use std::time::Duration;

use proto::native::Cipher;
use proto::node::ConnectionView;
use proto::overlay::{ForwarderView, Health, Overlay};
use serde_json::{Value, json};

use crate::sources::Sources;
use report::time::rfc3339;

impl Sources<'_> {
    /// Connections and targets that are not connected, as JSON.
    pub(super) fn connection_facts(&self) -> Vec<Value> {
        let mesh = &self.view.mesh;
        let mut facts: Vec<Value> = mesh
            .connections
            .iter()
            .map(|c| {
                let overlays: Vec<Value> = c.forwarders.iter().map(forwarder_facts).collect();
                let active = c.active.as_ref();
                let native = active.and_then(|active| active.native.as_ref());
                json!({
                    "peer": c.peer.name.to_string(),
                    "nickname": c.peer.nickname.as_ref(),
                    "address": c.address.to_string(),
                    "outbound": c.outbound,
                    "state": if c.established { "established" } else { "pending" },
                    "protocol": c.version,
                    "overlay": active.map(|active| active.overlay.name()),
                    "mtu": active.and_then(|active| active.path).map(|path| path.mtu),
                    "encrypted": c.encrypted,
                    "frames_encrypted": frames_are_encrypted(c),
                    "cipher": cipher(c),
                    "rtt_ms": native.and_then(|native| native.rtt).map(millis),
                    "loss": native.and_then(|native| native.loss_out).map(percent),
                    "overlays": overlays,
                    "why_not_weft": why_not_native(c),
                    "queued_bytes": c.bytes_in_flight + c.bytes_waiting,
                })
            })
            .collect();
        facts.extend(mesh.targets.iter().filter_map(|target| {
            let report = self.target_report(target)?;
            Some(json!({
                "address": report.address,
                "outbound": true,
                "state": report.state,
                "error": target.error,
                "next_try": target.next_try.map(|at| rfc3339(self.view.wall(at))),
                "direct": target.direct,
            }))
        }));
        facts
    }
}

/// Returns what is known of one overlay of a connection.
fn forwarder_facts(forwarder: &ForwarderView) -> Value {
    let (health, why) = match &forwarder.health {
        Health::Pending => ("pending", Some(PENDING_REASON)),
        Health::Established => ("established", None),
        Health::OnHold(why) => ("on hold", Some(why.as_str())),
        Health::Failed(why) => ("failed", Some(why.as_str())),
    };
    let path = forwarder.path;
    let mut facts = json!({
        "overlay": forwarder.overlay.name(),
        "health": health,
        "reason": why,
        "remote": path.and_then(|p| p.remote).map(|r| r.to_string()),
        "mtu": path.map(|p| p.mtu),
        "mtu_verified": path.map(|p| p.mtu_verified),
        "fragments": path.map(|p| p.fragments),
        "encrypted": forwarder.sealed,
    });
    if let (Some(native), Some(facts)) = (&forwarder.native, facts.as_object_mut()) {
        let more = [
            ("cipher", json!(native.cipher.map(Cipher::name))),
            ("key_epoch", json!(native.epoch)),
            ("rtt_ms", json!(native.rtt.map(millis))),
            ("loss_out", json!(native.loss_out.map(percent))),
            ("loss_in", json!(native.loss_in.map(percent))),
            ("holds", json!(native.holds)),
        ];
        facts.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    facts
}

/// Returns true if frames over a connection are encrypted by the overlay that carries them, or will
/// be by the one that has to.
pub(super) fn frames_are_encrypted(c: &ConnectionView) -> bool {
    let by_sleeve = c.encrypted && !c.trusted;
    c.active.as_ref().map_or(by_sleeve, |active| active.sealed)
}

/// Why the native overlay does not carry a connection's frames; none if it does.
fn why_not_native(c: &ConnectionView) -> Option<&str> {
    let is_native = |view: &&ForwarderView| view.overlay == Overlay::Weft;
    if c.active.as_ref().filter(is_native).is_some() {
        return None;
    }
    match c.forwarders.iter().find(is_native).map(|view| &view.health) {
        Some(Health::OnHold(why) | Health::Failed(why)) => Some(why),
        Some(Health::Pending | Health::Established) => Some(PENDING_REASON),
        None if c.is_weft() => Some("switched off here by --overlays"),
        None => Some("peer does not offer it"),
    }
}

const PENDING_REASON: &str = "nothing came through yet";

/// Returns the cipher of frames; none if they travel in the clear.
fn cipher(c: &ConnectionView) -> Option<&'static str> {
    let active = c.active.as_ref()?;
    match &active.native {
        Some(native) => native.cipher.map(Cipher::name),
        None => active.sealed.then_some("xsalsa20-poly1305"),
    }
}

/// Milliseconds, to three decimals.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// Returns a part of 1 as percent, to two decimals.
fn percent(part: f64) -> f64 {
    (part * 10_000.0).round() / 100.0
}
