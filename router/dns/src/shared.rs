//! State shared by the tasks of the server.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fastrand::Rng;
use proto::names::Index;
use proto::names::answer::{Responder, Zone};
use proto::names::message::{Query, Rcode};

use crate::allowed_clients;
use crate::forward::Forwarder;
use crate::limit::Limit;
use crate::metrics::DnsMetrics;

/// State shared by the tasks of the server.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) zone: Zone,
    /// Whether it listens on whatever addresses the host has, and not on one that was chosen.
    pub(crate) everywhere: bool,
    pub(crate) names: Arc<ArcSwap<Index>>,
    pub(crate) forwarder: Forwarder,
    pub(crate) forwards: Limit,
    pub(crate) connections: Limit,
    pub(crate) metrics: Arc<DnsMetrics>,
}

impl Shared {
    pub(crate) fn responder(&self) -> Responder {
        let mut seed = [0; 8];
        // Without randomness the order of addresses repeats, which harms nobody.
        let _ = getrandom::fill(&mut seed);
        Responder::new(self.zone.clone(), Rng::with_seed(u64::from_ne_bytes(seed)))
    }

    /// Returns true if this client, which asked at `local`, is answered: with names of the domain,
    /// which tell of the network, and by asking others.
    pub(crate) fn answers(&self, client: IpAddr, local: Option<IpAddr>) -> bool {
        !self.everywhere || allowed_clients::is_near(client, local, &self.zone.private)
    }

    /// Makes the response for a client that is not answered. Returns false if there is none to
    /// make.
    pub(crate) fn refuse(&self, packet: &[u8], response: &mut Vec<u8>) -> bool {
        match Query::parse(packet) {
            Ok(query) => {
                self.metrics.refused.inc();
                query.failure(Rcode::Refused, response);
                true
            }
            Err(_) => {
                self.metrics.ignored.inc();
                false
            }
        }
    }

    /// Counts a query that was answered here.
    pub(crate) fn count(&self, rcode: Rcode) {
        match rcode {
            Rcode::NoError => self.metrics.answered.inc(),
            Rcode::NxDomain => self.metrics.name_errors.inc(),
            _ => self.metrics.refused.inc(),
        }
    }
}
