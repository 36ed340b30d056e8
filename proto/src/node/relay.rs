//! The relay of gossip: delivery, relaying, and gossip that waits for routes.

use std::sync::Arc;
use std::time::Duration;

use super::channels::{Channels, Kind};
use super::config::GOSSIP_INTERVAL;
use super::output::{DeliveryKind, Output};
use super::sink::Sink;
use crate::gossip::{ChannelId, News, Reach, Relays, Route};
use crate::message::Message;
use crate::routes::Routes;
use crate::types::{ConnId, PeerName, Time};

/// The channels, and news that wait for routes.
#[derive(Debug)]
pub(super) struct Relay {
    channels: Channels,
    relays: Relays,
    gossip_at: Time,
    rng: fastrand::Rng,
}

/// The remaining work on a message.
#[derive(Debug)]
pub(super) enum Heard<'m> {
    /// Nothing.
    Done,
    /// It is a unicast for this peer.
    Forward(PeerName),
    /// It is an update of the topology.
    Topology(DeliveryKind, &'m [u8]),
    /// It goes on like this.
    PassOn(ChannelId, Route, News),
}

/// News for some neighbours.
#[derive(Debug)]
pub(super) struct Mailing {
    pub(super) channel: ChannelId,
    pub(super) reach: Reach,
    pub(super) news: News,
    pub(super) to: Vec<PeerName>,
}

impl Relay {
    /// Creates the state that first gossips after `first_gossip`; random choices are drawn from
    /// `rng`.
    pub(super) fn new(
        outside: &[String],
        now: Time,
        first_gossip: Duration,
        rng: fastrand::Rng,
    ) -> Relay {
        Relay {
            channels: Channels::new(outside),
            relays: Relays::default(),
            gossip_at: now + first_gossip,
            rng,
        }
    }

    /// Returns when everything is to be gossiped.
    pub(super) fn poll_timeout(&self) -> Time {
        self.gossip_at
    }

    /// Returns true if everything is to be gossiped now; then that counts as done.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let due = self.gossip_at <= now;
        if due {
            self.gossip_at = now + GOSSIP_INTERVAL;
        }
        due
    }

    pub(super) fn name(&self, channel: ChannelId) -> &Arc<str> {
        self.channels.name(channel)
    }

    /// Returns the channel of this name, if the driver handles it.
    pub(super) fn outside(&self, name: &str) -> Option<ChannelId> {
        self.channels.outside(name)
    }

    /// Returns all channels that the driver handles.
    pub(super) fn all_outside(&self) -> Vec<ChannelId> {
        self.channels.all_outside()
    }

    /// Returns true if the state of a channel can take the place of its payloads.
    pub(super) fn has_state(&self, channel: ChannelId) -> bool {
        self.channels.has_state(channel)
    }

    /// Lets surrogates forget what they saw long ago.
    pub(super) fn age(&mut self) {
        self.channels.age();
    }

    /// Keeps news until routes are up to date. Returns the number of dropped payloads.
    pub(super) fn push(&mut self, channel: ChannelId, route: Route, news: News) -> usize {
        let has_state = self.channels.has_state(channel);
        self.relays.push(channel, route, news, has_state)
    }

    /// Draws some neighbours, `except` this one.
    ///
    /// Rule: `docs/protocol/mesh.md#5-5-random-neighbours`.
    pub(super) fn draw(&mut self, routes: &Routes, except: Option<PeerName>) -> Vec<PeerName> {
        routes.random_neighbours(except, &mut self.rng)
    }

    /// Returns the first of the news that wait, and to whom they go.
    pub(super) fn pop(&mut self, routes: &Routes) -> Option<Mailing> {
        let (channel, route, news) = self.relays.pop()?;
        let (reach, to) = match route {
            Route::Neighbours { except } => {
                let chosen = routes.random_neighbours(except, &mut self.rng);
                (Reach::Neighbour, chosen)
            }
            Route::Broadcast { source } => {
                let next = routes.broadcast_all(source).to_vec();
                (Reach::Everybody(source), next)
            }
        };
        Some(Mailing {
            channel,
            reach,
            news,
            to,
        })
    }

    /// Takes in a gossip message that `neighbour` sent to `us`, and hands it to the driver if it
    /// is for one of its channels.
    ///
    /// Rule: `docs/protocol/mesh.md#5-4-relaying`.
    pub(super) fn hear<'m>(
        &mut self,
        us: PeerName,
        (conn, neighbour): (ConnId, PeerName),
        message: Message<'m>,
        sink: &mut Sink,
    ) -> Heard<'m> {
        let (channel, kind, payload) = match message {
            Message::Gossip {
                channel, payload, ..
            } => (channel, DeliveryKind::Gossip, payload),
            Message::Broadcast {
                channel,
                source,
                payload,
            } => (channel, DeliveryKind::Broadcast { source }, payload),
            Message::Unicast { dest, .. } if dest != us => return Heard::Forward(dest),
            Message::Unicast {
                channel,
                source,
                payload,
                ..
            } => (channel, DeliveryKind::Unicast { source }, payload),
            _ => return Heard::Done,
        };
        sink.counters.gossip_received += 1;
        sink.counters.gossip_received_bytes += payload.len() as u64;
        let Some(id) = self.channels.find_or_add(channel) else {
            sink.counters.gossip_dropped += 1;
            return Heard::Done;
        };
        let channel = self.channels.name(id).clone();
        match self.channels.kind_mut(id) {
            Kind::Topology => Heard::Topology(kind, payload),
            Kind::Outside => {
                sink.push(Output::Deliver {
                    channel,
                    conn,
                    neighbour,
                    kind,
                    payload: payload.to_vec(),
                });
                Heard::Done
            }
            Kind::Surrogate(seen) => {
                let route = match kind {
                    DeliveryKind::Unicast { .. } => return Heard::Done,
                    DeliveryKind::Gossip if !seen.is_new(payload) => return Heard::Done,
                    DeliveryKind::Gossip => Route::Neighbours {
                        except: Some(neighbour),
                    },
                    DeliveryKind::Broadcast { source } => Route::Broadcast { source },
                };
                Heard::PassOn(id, route, News::Payload(payload.into()))
            }
        }
    }
}
