//! The allocator as reports show it.

use report::model::{IpamReport, PaxosReport, PendingCidr, PendingClaim, RingEntryReport};
use serde_json::{Value, json};

use crate::sources::Sources;

impl Sources<'_> {
    pub(super) fn ipam_report(&self) -> Option<IpamReport> {
        let status = &self.view.addresses.as_ref()?.status;
        let owned = |text: Vec<_>| (!text.is_empty()).then_some(text);
        Some(IpamReport {
            paxos: status.election.as_ref().map(|election| PaxosReport {
                elector: election.elector,
                known_nodes: election.known,
                quorum: election.quorum,
            }),
            range: status.universe.to_string(),
            range_num_ips: u64::from(status.universe.range().size()),
            active_ips: u64::from(status.active),
            default_subnet: status.default_subnet.to_string(),
            entries: owned(
                status
                    .entries
                    .iter()
                    .map(|entry| RingEntryReport {
                        token: entry.token.to_string(),
                        size: u64::from(entry.size),
                        peer: entry.peer.to_string(),
                        nickname: entry.nickname.clone(),
                        is_known_peer: entry.known,
                        version: entry.version,
                    })
                    .collect(),
            ),
            pending_claims: {
                let claims = status
                    .pending_claims
                    .iter()
                    .map(|(ident, cidr, _)| PendingClaim {
                        ident: ident.clone(),
                        cidr: PendingCidr {
                            addr: cidr.address.to_string(),
                            prefix_len: cidr.len,
                        },
                    });
                let claims: Vec<_> = claims.collect();
                (!claims.is_empty()).then_some(claims)
            },
            pending_allocates: {
                let waiting: Vec<String> = status
                    .pending_allocates
                    .iter()
                    .map(|(id, net, _)| format!("{id} {net}"))
                    .collect();
                (!waiting.is_empty()).then_some(waiting)
            },
        })
    }

    /// Returns what programs are told of the allocator beyond Weave Net's report.
    pub(super) fn ipam_facts(&self) -> Value {
        let Some(addresses) = &self.view.addresses else {
            return Value::Null;
        };
        let status = &addresses.status;
        let waiting = |list: &[(String, ipam::range::Cidr, ipam::allocator::Waiting)]| {
            let facts = list.iter().map(|(id, what, why)| {
                json!({ "id": id, "address": what.to_string(), "waits_for": why.to_string() })
            });
            Value::from(facts.collect::<Vec<_>>())
        };
        let owners = self
            .ipam_report()
            .and_then(|report| report.entries)
            .unwrap_or_default();
        json!({
            "health": format!("{:?}", status.health),
            "range": status.universe.to_string(),
            "default_subnet": status.default_subnet.to_string(),
            "active": status.active,
            "used": status.used,
            "free": status.free,
            "held_back": status.held_back,
            "leases": status.leases,
            "leases_unused": status.leases_unused,
            "ring": owners,
            "pending_claims": waiting(&status.pending_claims),
            "pending_allocates": waiting(&status.pending_allocates),
            "takeovers": status.takeovers.iter().map(|t| json!({
                "peer": t.peer.to_string(),
                "nickname": t.nickname,
                "addresses": t.addresses,
                "waiting": t.waiting.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "alarms": status.alarms.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "store_error": status.store_error,
        })
    }
}
