//! What users want.

use ipam::allocator::Request;
use ipam::leases::{Identity, IdentityKind};

use crate::host::Asked;
use crate::world::{Container, Machine, World};

impl World {
    pub(crate) fn user(&mut self) {
        let living: Vec<usize> = (0..self.nodes.len())
            .filter(|node| !self.nodes[*node].dead && self.nodes[*node].up)
            .collect();
        let Some(node) = self.rng.choice(&living).copied() else {
            return;
        };
        match self.rng.u8(0..100) {
            0..45 => self.start_container(node),
            45..90 => self.stop_container(),
            90..95 => self.claim(node),
            95..97 => self.reserve(node),
            _ => self.lease_change(node),
        }
    }

    pub(crate) fn identity(&mut self) -> Option<Identity> {
        if self.plan.identities == 0 || self.rng.u8(0..3) == 0 {
            return None;
        }
        let number = self.rng.usize(0..self.plan.identities);
        let kind = if number % 4 == 3 {
            IdentityKind::Derived
        } else {
            IdentityKind::Explicit
        };
        Identity::new(kind, &format!("service-{number}")).ok()
    }

    pub(crate) fn new_container(&mut self, host: usize, identity: Option<Identity>) -> String {
        self.next_container += 1;
        let id = format!("c{}", self.next_container);
        let container = Container {
            host,
            identity,
            address: None,
        };
        self.containers.insert(id.clone(), container);
        id
    }

    pub(crate) fn new_container_of(&mut self, id: &str, host: usize) {
        let container = Container {
            host,
            identity: None,
            address: None,
        };
        self.containers.insert(id.to_owned(), container);
    }

    pub(crate) fn start_container(&mut self, node: usize) {
        let weave = matches!(self.nodes[node].machine, Machine::Weave(_));
        let identity = if weave { None } else { self.identity() };
        let id = self.new_container(node, identity.clone());
        if weave {
            return self.weave(node, |weave| weave.start(id, None));
        }
        let deadline = Some(self.rng.u64(1..40));
        let request = Request::Allocate {
            id: id.clone(),
            subnet: None,
            identity,
            container: true,
        };
        self.request(node, Asked::Start(id), deadline, request);
    }

    pub(crate) fn claim(&mut self, node: usize) {
        let hosts = self.plan.universe.host_range();
        let address = hosts.start.plus(self.rng.u32(0..hosts.size()));
        let id = self.new_container(node, None);
        if matches!(self.nodes[node].machine, Machine::Weave(_)) {
            return self.weave(node, |weave| weave.start(id, Some(address)));
        }
        self.watch.claims.insert(id.clone(), address);
        let request = Request::Claim {
            id: id.clone(),
            cidr: self.plan.universe.with_address(address),
            identity: None,
            container: true,
            no_error_on_unknown: false,
            force: self.rng.u8(0..4) == 0,
        };
        let deadline = Some(self.rng.u64(1..40));
        self.request(node, Asked::Start(id), deadline, request);
    }

    pub(crate) fn stop_container(&mut self) {
        let running: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.address.is_some() && !self.nodes[c.host].dead)
            .map(|(id, _)| id.clone())
            .collect();
        if let Some(id) = self.rng.choice(&running).cloned() {
            self.stop(&id);
        }
    }

    pub(crate) fn stop(&mut self, id: &str) {
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        let node = container.host;
        let name = self.nodes[node].name;
        self.note(|| format!("{id} on {name} stops"));
        if let Some(address) = container.address {
            self.watch.in_use.remove(&address);
        }
        match self.nodes[node].machine {
            Machine::Weave(_) => self.weave(node, |weave| weave.stop(id)),
            Machine::Weft(_) => {
                let request = Request::Delete { id: id.to_owned() };
                self.request(node, Asked::Stop(id.to_owned()), None, request);
            }
        }
    }

    pub(crate) fn reserve(&mut self, node: usize) {
        let Some(identity) = self.identity() else {
            return;
        };
        let hosts = self.plan.universe.host_range();
        let address = hosts.start.plus(self.rng.u32(0..hosts.size()));
        let request = Request::LeaseReserve {
            identity,
            subnet: None,
            address: self.rng.bool().then_some(address),
            pinned: false,
        };
        self.request(node, Asked::Other, Some(20), request);
    }

    pub(crate) fn lease_change(&mut self, node: usize) {
        let Some(identity) = self.identity() else {
            return;
        };
        let key = identity.key(self.plan.universe);
        let request = match self.rng.u8(0..4) {
            0 => Request::LeaseRelease { key, force: false },
            n => Request::LeasePin {
                key,
                pinned: n == 1,
            },
        };
        self.request(node, Asked::Other, Some(20), request);
    }
}
