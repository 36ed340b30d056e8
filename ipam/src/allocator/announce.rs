//! Announcements about ourselves and about peers that are gone.

use proto::gob::Encoder;
use proto::types::PeerName;

use super::api::{Channel, Output};
use super::cx::Cx;
use crate::leases::wire::{Hello, Message};
use crate::messages::{Unicast, encode_state};

impl Cx {
    /// Encodes our `gossipState`, with the current numbers of free addresses.
    ///
    /// Format: `docs/protocol/ipam.md#1-2-gossip-state`.
    pub(super) fn ring_payload(&mut self) -> Vec<u8> {
        self.report_free();
        let (ring, us) = (self.durable.ring(), self.durable.us());
        let nicknames = self.members.nicknames().iter();
        let mut encoder = Encoder::new();
        let ring = (!ring.is_empty()).then_some((us, ring));
        let election = self.elector.as_ref().map(|elector| elector.nodes());
        encode_state(
            &mut encoder,
            i64::try_from(self.clock.wall).unwrap_or(i64::MAX),
            nicknames.map(|(name, nickname)| (*name, nickname.as_str())),
            election.filter(|_| ring.is_none()),
            ring,
        );
        encoder.finish()
    }

    /// Returns our `gossipState` for a peer that asks for it, unless it has had enough for now.
    ///
    /// Rule: `docs/protocol/ipam.md#11-1-rations`.
    pub(super) fn ring_for(&mut self, asker: PeerName) -> Option<Vec<u8>> {
        let now = self.clock.now;
        if !self.rations.allows(asker, now) {
            return None;
        }
        let state = self.ring_payload();
        self.rations.spend(asker, state.len(), now);
        Some(state)
    }

    /// Sends our ring to those that asked for more than their ration, as far as that is full
    /// again.
    pub(super) fn send_owed(&mut self) {
        for peer in self.rations.payable(self.clock.now) {
            self.send_ring(peer);
        }
    }

    /// Sends our ring to one peer, later if it has had enough for now.
    pub(super) fn send_ring(&mut self, to: PeerName) {
        if self.members.is_silent(to) {
            return;
        }
        let Some(state) = self.ring_for(to) else {
            return self.rations.owe(to);
        };
        let payload = Unicast::RingUpdate(&state).encode();
        self.unicast(Channel::Ring, to, payload);
    }

    /// Encodes our hello for other weft routers.
    ///
    /// Format: `docs/protocol/ipam.md#9-1-messages`.
    pub(super) fn hello(&self, reply: bool) -> Vec<u8> {
        Message::Hello(Hello {
            origin: self.durable.us(),
            digest: self.durable.leases().digest(),
            universe: self.durable.meta().universe,
            yields: self.universe_yields(),
            has_ring: !self.durable.ring().is_empty(),
            reply,
        })
        .encode()
    }

    pub(super) fn announce_gone(&mut self, peer: PeerName) {
        let payload = Message::Gone(peer).encode();
        self.emit(Output::Broadcast {
            channel: Channel::Leases,
            payload,
        });
    }

    /// Returns the peers that left or were removed, here or elsewhere, and have not come back.
    pub(super) fn gone_peers(&self) -> Vec<PeerName> {
        let known = self.durable.known().iter();
        let gone = known.filter(|(_, known)| known.gone);
        gone.map(|(peer, _)| *peer)
            .filter(|peer| !self.members.is_reachable(*peer))
            .collect()
    }

    /// Returns the peers that we are taking over.
    pub(super) fn taking(&self) -> Vec<PeerName> {
        let us = self.durable.us();
        let active = self
            .durable
            .takeovers()
            .iter()
            .filter(|(_, t)| t.is_active());
        active
            .map(|(peer, _)| *peer)
            .filter(|peer| *peer != us)
            .collect()
    }
}
