//! Outputs in words, short enough to read and exact enough to compare two runs.

use proto::node::Output;

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
        Output::Event(event) => format!("Event {event}"),
        other => format!("{other:?}"),
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
