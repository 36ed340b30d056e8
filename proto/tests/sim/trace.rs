//! Outputs in words, short enough to read and exact enough to compare two runs.

use proto::node::{LinkAction, LinkOutput, Output};
use proto::sleeve::LinkId;

pub(crate) fn describe(output: &Output) -> String {
    match output {
        Output::Send { conn, bytes } => {
            format!("Send {conn} {} bytes, {:016x}", bytes.len(), fnv(bytes))
        }
        Output::Deliver {
            channel,
            neighbour,
            kind,
            payload,
            ..
        } => {
            format!(
                "Deliver {channel} from {neighbour} {kind:?} {:016x}",
                fnv(payload)
            )
        }
        Output::Routes(routes) => {
            let hops: Vec<_> = routes.unicast_table().collect();
            format!(
                "Routes to {} of {} {hops:?}",
                hops.len(),
                routes.peers().len()
            )
        }
        Output::LinkAdded(info) => {
            format!(
                "LinkAdded {} to {} uid {:x}",
                info.link, info.peer, info.uid.0
            )
        }
        Output::Link(LinkOutput { link, what }) => describe_link(*link, what),
        Output::Event(event) => format!("Event {event}"),
        other => format!("{other:?}"),
    }
}

fn describe_link(link: LinkId, what: &LinkAction) -> String {
    match what {
        LinkAction::Path(path) => format!("Path of {link} {path:?}"),
        LinkAction::Keys(keys) => {
            let send = keys.send.as_ref().map(|key| key.epoch());
            let receive: Vec<_> = keys.receive.iter().map(|key| key.session()).collect();
            format!("Keys of {link} {send:?} {receive:?}")
        }
        LinkAction::NeedSecret => format!("Secret for {link}"),
        LinkAction::Special(special) => format!("Special on {link} {special:?}"),
        LinkAction::Report(report, bytes) => {
            format!("Report on {link} {report:?} in {bytes} bytes")
        }
    }
}

/// A digest of nothing.
pub(crate) const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(bytes: &[u8]) -> u64 {
    extend(EMPTY, bytes)
}

/// Returns the digest of what `digest` stands for with `bytes` behind it.
pub(crate) fn extend(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
