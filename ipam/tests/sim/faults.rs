//! What goes wrong, and how it ends.

use std::borrow::Cow;

use ipam::allocator::Request;
use ipam::range::Range;

use crate::host::Asked;
use crate::weave::Weave;
use crate::world::{Machine, SECOND, World};

impl World {
    pub(crate) fn fault(&mut self) {
        match self.rng.u8(0..12) {
            0..4 if self.plan.partitions => self.partition(),
            4..6 if self.plan.partitions => self.join(),
            6 if self.plan.full_disks => {
                let node = self.rng.usize(0..self.nodes.len());
                let until = self.now + self.rng.u64(0..20 * SECOND);
                if let Machine::Weft(host) = &mut self.nodes[node].machine {
                    host.disk.full_until = until;
                }
            }
            7 if self.plan.skew => {
                let node = self.rng.usize(0..self.nodes.len());
                let skew = self.rng.i64(-100_000..100_000);
                if let Machine::Weft(host) = &mut self.nodes[node].machine {
                    host.skew = skew;
                }
            }
            8 if self.deaths_left > 0 => {
                if let Some(node) = self.living_weft() {
                    self.deaths_left -= 1;
                    self.die(node);
                    self.to_remove.insert(node, None);
                }
            }
            9 if self.resets_left > 0 => {
                if let Some(node) = self.living_weft() {
                    self.resets_left -= 1;
                    self.reset(node);
                }
            }
            10 if self.plan.crash > 0.0 => self.restart_weave(),
            _ => self.remove_dead(),
        }
    }

    pub(crate) fn partition(&mut self) {
        for node in &mut self.nodes {
            node.group = self.rng.u8(0..2);
        }
        let groups: Vec<u8> = self.nodes.iter().map(|node| node.group).collect();
        self.note(|| format!("partition {groups:?}"));
        self.topology_changed();
    }

    /// Hosts of different groups cannot reach each other.
    pub(crate) fn split(&mut self, groups: &[u8]) {
        for (node, group) in self.nodes.iter_mut().zip(groups) {
            node.group = *group;
        }
        self.note(|| format!("partition {groups:?}"));
        self.topology_changed();
    }

    pub(crate) fn join(&mut self) {
        for node in &mut self.nodes {
            node.group = 0;
        }
        self.note(|| "no partition".to_owned());
        self.topology_changed();
    }

    pub(crate) fn living_weft(&mut self) -> Option<usize> {
        let living: Vec<usize> = (0..self.plan.weft)
            .filter(|node| !self.nodes[*node].dead && self.nodes[*node].up)
            .collect();
        if living.len() < 3 {
            return None;
        }
        self.rng.choice(&living).copied()
    }

    /// The host is gone forever, with all that ran on it.
    pub(crate) fn die(&mut self, node: usize) {
        let name = self.nodes[node].name;
        self.note(|| format!("{name} is gone for ever"));
        self.nodes[node].dead = true;
        self.nodes[node].up = false;
        let gone: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.host == node)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(address) = self.containers.remove(&id).and_then(|c| c.address) {
                self.watch.in_use.remove(&address);
            }
        }
        if let Machine::Weft(host) = &mut self.nodes[node].machine {
            host.allocator = None;
            host.requests.clear();
            host.usable.clear();
        }
        self.topology_changed();
    }

    /// The host leaves by handing everything over; its containers end first.
    pub(crate) fn reset(&mut self, node: usize) {
        let gone: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, c)| c.host == node)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(address) = self.containers.remove(&id).and_then(|c| c.address) {
                self.watch.in_use.remove(&address);
            }
        }
        if let Machine::Weft(host) = &mut self.nodes[node].machine {
            host.reset = true;
        }
        self.request(node, Asked::Reset, None, Request::Shutdown);
    }

    pub(crate) fn remove_dead(&mut self) {
        let waiting: Vec<usize> = self.to_remove.keys().copied().collect();
        if let Some(dead) = self.rng.choice(&waiting).copied() {
            self.remove(dead);
        }
    }

    /// Removes a dead host, on the host where that was begun before, if it lives.
    pub(crate) fn remove(&mut self, dead: usize) {
        let begun = self.to_remove.get(&dead).copied().flatten();
        let on = match begun.filter(|on| !self.nodes[*on].dead) {
            Some(on) => on,
            None => match self.living_or_any() {
                Some(on) => on,
                None => return,
            },
        };
        self.to_remove.insert(dead, Some(on));
        let request = Request::RemovePeer {
            peer: self.nodes[dead].name.to_string(),
            confirmed: true,
        };
        self.request(on, Asked::Remove(dead), Some(100), request);
    }

    pub(crate) fn living_or_any(&mut self) -> Option<usize> {
        let living: Vec<usize> = (0..self.plan.weft)
            .filter(|node| !self.nodes[*node].dead && self.nodes[*node].up)
            .collect();
        self.rng.choice(&living).copied()
    }

    pub(crate) fn restart_weave(&mut self) {
        for node in self.plan.weft..self.nodes.len() {
            let Machine::Weave(weave) = &self.nodes[node].machine else {
                continue;
            };
            if !weave.ring.is_empty() {
                self.weave(node, Weave::restart);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        for node in &mut self.nodes {
            node.group = 0;
            if let Machine::Weft(host) = &mut node.machine {
                host.disk.full_until = 0;
                host.skew = 0;
            }
        }
        self.topology_changed();
    }

    /// Removes dead hosts that still own something; whether there were any.
    pub(crate) fn finish_removals(&mut self) -> bool {
        let mut any = false;
        let dead: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].dead)
            .collect();
        for dead in dead {
            let name = self.nodes[dead].name;
            let owns = (0..self.plan.weft).any(|node| match &self.nodes[node].machine {
                Machine::Weft(host) => host.allocator.as_ref().is_some_and(|allocator| {
                    let mut takeovers = allocator.takeover_status().into_iter();
                    allocator.ring().has_owner(name)
                        || takeovers.any(|takeover| takeover.waiting.contains(&name))
                }),
                Machine::Weave(_) => false,
            });
            if self.to_remove.contains_key(&dead) || owns {
                any = true;
                self.remove(dead);
            }
        }
        any
    }

    pub(crate) fn usable(&self, node: usize) -> Cow<'_, [Range]> {
        match &self.nodes[node].machine {
            Machine::Weft(host) => Cow::Borrowed(&host.usable),
            Machine::Weave(weave) => Cow::Owned(weave.ring.owned_ranges(weave.name)),
        }
    }
}
