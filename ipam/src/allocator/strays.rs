//! Addresses that are in use here although the ring gives them to others.

use std::collections::BTreeSet;

use proto::types::PeerName;

use super::api::Alarm;
use super::cx::Cx;
use super::questions::space::Asked;
use crate::range::{Address, Range};

/// The known ones.
#[derive(Debug, Default)]
pub(super) struct Strays {
    known: BTreeSet<Address>,
}

impl Strays {
    /// Raises alarms for addresses that are in use here although the ring assigns them to others,
    /// and ends alarms for all other addresses.
    pub(super) fn watch(&mut self, cx: &mut Cx) {
        let us = cx.durable.us();
        let ring = cx.durable.ring();
        let strays: Vec<(Address, String, PeerName)> = cx
            .durable
            .strays()
            .filter_map(|(address, holding)| {
                let owner = ring.owner(address).filter(|owner| *owner != us)?;
                Some((address, holding.id.clone(), owner))
            })
            .collect();
        let now: BTreeSet<Address> = strays.iter().map(|(address, ..)| *address).collect();
        let ended: Vec<Address> = self.known.difference(&now).copied().collect();
        for address in ended {
            cx.notices.end(|alarm| match alarm {
                Alarm::Stray { address: a, .. } | Alarm::Duplicate { address: a, .. } => {
                    *a == address
                }
                _ => false,
            });
        }
        for (address, id, owner) in strays {
            if !self.known.contains(&address) {
                cx.alarm(Alarm::Stray { address, id, owner });
            }
        }
        self.known = now;
    }
}

/// Asks the owners of addresses that are in use here to give them to us.
pub(super) fn claim(cx: &mut Cx) {
    let us = cx.durable.us();
    let strays: Vec<(Address, String)> = cx
        .durable
        .strays()
        .map(|(address, holding)| (address, holding.id.clone()))
        .collect();
    for (address, id) in strays {
        let Some(owner) = cx.durable.ring().owner(address).filter(|o| *o != us) else {
            continue;
        };
        if cx.ask_for_space(owner, Range::single(address)) == Asked::Denied {
            cx.alarm(Alarm::Duplicate { address, id, owner });
        }
    }
}

/// Handles that a peer has sent its ring, after which its denials are final: it keeps addresses
/// that are in use here.
pub(super) fn note_kept(cx: &mut Cx, by: PeerName) {
    let (now, asks, ring) = (cx.clock.now, &cx.questions.space, cx.durable.ring());
    let kept: Vec<(Address, String)> = cx
        .durable
        .strays()
        .filter(|(address, _)| ring.owner(*address) == Some(by))
        .filter(|(address, _)| asks.is_denied(by, Range::single(*address), now))
        .map(|(address, holding)| (address, holding.id.clone()))
        .collect();
    for (address, id) in kept {
        let owner = by;
        cx.alarm(Alarm::Duplicate { address, id, owner });
    }
}
