//! Next hops, computed from the topology exactly as every other member computes them.
//!
//! Each peer decides alone whom it sends to, so a frame reaches each peer once only if all walk
//! the same graph in the same order: breadth first, the peers of a level in order of names.
//!
//! There are two graphs. The *established* one has an edge between two peers that both say their
//! connection is established; frames follow it. The graph of *all* connections has a directed edge
//! for every listed one; gossip follows that, so that it also reaches peers without an overlay.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::topology::{Topology, resolve};
use crate::types::PeerName;

/// The routes of one state of the topology. Never changes, so threads may share it.
#[derive(Debug)]
pub struct Routes {
    us: usize,
    /// All peers in order; elsewhere a peer is its index in here.
    names: Box<[PeerName]>,
    established: Layer,
    all: Layer,
}

impl Routes {
    /// The routes of this topology.
    ///
    /// Broadcast routes of other peers are computed when they are first asked for.
    pub fn calculate(topology: &Topology) -> Routes {
        let names: Box<[PeerName]> = topology.names().collect();
        // Our own entry is always there.
        let us = names.binary_search(&topology.us()).unwrap_or_default();
        let (all, established) = graphs(topology, &names);
        let routes = Routes {
            us,
            established: Layer::new(established, &names, us),
            all: Layer::new(all, &names, us),
            names,
        };
        let _ = routes.broadcast(topology.us());
        routes
    }

    /// Our own name.
    pub fn us(&self) -> PeerName {
        self.names.get(self.us).copied().unwrap_or_default()
    }

    /// All known peers in order of names, ourselves among them.
    pub fn peers(&self) -> &[PeerName] {
        &self.names
    }

    /// The neighbour that frames for `dest` go to; `None` for ourselves and for peers that cannot
    /// be reached.
    pub fn unicast(&self, dest: PeerName) -> Option<PeerName> {
        self.hop(&self.established, dest)
    }

    /// The neighbour that gossip for `dest` goes to; `None` for ourselves and for peers that cannot
    /// be reached.
    pub fn unicast_all(&self, dest: PeerName) -> Option<PeerName> {
        self.hop(&self.all, dest)
    }

    /// The neighbours to which broadcast frames of `source` are sent on, in order of names.
    pub fn broadcast(&self, source: PeerName) -> &[PeerName] {
        self.spread(&self.established, source)
            .map_or(&[], |spread| &spread.to)
    }

    /// The neighbour from which broadcast frames of `source` come to us; `None` for our own, and if
    /// none can come.
    pub fn parent(&self, source: PeerName) -> Option<PeerName> {
        self.spread(&self.established, source)?.parent
    }

    /// The neighbours to which broadcast gossip of `source` is sent on, in order of names.
    pub fn broadcast_all(&self, source: PeerName) -> &[PeerName] {
        self.spread(&self.all, source)
            .map_or(&[], |spread| &spread.to)
    }

    /// All peers to which frames can be sent, with the next hop, in order of names; ourselves with
    /// [`PeerName::UNKNOWN`].
    pub fn unicast_table(&self) -> impl Iterator<Item = (PeerName, PeerName)> {
        let hops = self.names.iter().zip(&self.established.hops);
        hops.enumerate()
            .filter(|(index, (_, via))| *index == self.us || **via != PeerName::UNKNOWN)
            .map(|(_, (dest, via))| (*dest, *via))
    }

    /// The broadcast routes for frames that were asked for so far, ours among them.
    pub fn broadcast_table(&self) -> impl Iterator<Item = (PeerName, &[PeerName])> {
        let spreads = self.names.iter().zip(&self.established.spreads);
        spreads.filter_map(|(source, spread)| Some((*source, spread.get()?.to.as_ref())))
    }

    /// Whether any chain of connections, established or not, leads from us to `peer`.
    pub fn is_reachable(&self, peer: PeerName) -> bool {
        peer == self.us() || self.unicast_all(peer).is_some()
    }

    /// For each neighbour, how many peers gossip reaches through it. `except` is left out.
    pub fn neighbour_weights(&self, except: Option<PeerName>) -> BTreeMap<PeerName, usize> {
        let mut weights = BTreeMap::new();
        for via in &self.all.hops {
            if *via != PeerName::UNKNOWN && Some(*via) != except {
                *weights.entry(*via).or_default() += 1;
            }
        }
        weights
    }

    /// How many of `available` neighbours get each piece of gossip: twice the binary logarithm of
    /// the number of peers that we reach, if there are so many.
    pub fn fan_out(&self, available: usize) -> usize {
        let others = self.all.hops.iter();
        let reached = 1 + others.filter(|via| **via != PeerName::UNKNOWN).count() as u64;
        // floor(2 * log2(n)) is floor(log2(n * n)), without rounding errors.
        available.min(reached.saturating_mul(reached).ilog2() as usize)
    }

    /// Draws the neighbours to gossip to. The more peers a neighbour leads to, the likelier it is;
    /// none is drawn twice. `except`, the neighbour that the gossip came from, is left out.
    pub fn random_neighbours(
        &self,
        except: Option<PeerName>,
        rng: &mut fastrand::Rng,
    ) -> Vec<PeerName> {
        let mut weights: Vec<(PeerName, usize)> =
            self.neighbour_weights(except).into_iter().collect();
        let wanted = self.fan_out(weights.len());
        let mut total: usize = weights.iter().map(|(_, weight)| weight).sum();
        let mut chosen = Vec::with_capacity(wanted);
        while chosen.len() < wanted && total > 0 {
            let mut point = rng.usize(..total);
            let hit = weights.iter().position(|(_, weight)| {
                let inside = point < *weight;
                point = point.saturating_sub(*weight);
                inside
            });
            let Some(hit) = hit else { break };
            let (name, weight) = weights.swap_remove(hit);
            total -= weight;
            chosen.push(name);
        }
        chosen
    }

    fn index(&self, name: PeerName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    fn hop(&self, layer: &Layer, dest: PeerName) -> Option<PeerName> {
        let via = layer.hops.get(self.index(dest)?)?;
        Some(*via).filter(|via| *via != PeerName::UNKNOWN)
    }

    fn spread<'s>(&'s self, layer: &'s Layer, source: PeerName) -> Option<&'s Spread> {
        let source = self.index(source)?;
        let spread = layer.spreads.get(source)?;
        Some(spread.get_or_init(|| layer.graph.spread(source, self.us, &self.names)))
    }
}

/// A graph and what was computed of it.
#[derive(Debug)]
struct Layer {
    graph: Graph,
    /// For each peer the next hop, or [`PeerName::UNKNOWN`].
    hops: Box<[PeerName]>,
    /// For each source, which way its broadcasts take here.
    spreads: Box<[OnceLock<Spread>]>,
}

/// The way of the broadcasts of one source.
#[derive(Debug, Default)]
struct Spread {
    /// The neighbours to which they go from us.
    to: Box<[PeerName]>,
    /// The neighbour from which they come.
    parent: Option<PeerName>,
}

impl Layer {
    fn new(graph: Graph, names: &[PeerName], us: usize) -> Layer {
        Layer {
            hops: graph.hops(us, names),
            graph,
            spreads: names.iter().map(|_| OnceLock::new()).collect(),
        }
    }
}

/// Edges of peers, packed: those of peer `p` are `edges[starts[p]..starts[p + 1]]`, in order.
#[derive(Debug)]
struct Graph {
    starts: Vec<u32>,
    edges: Vec<u32>,
}

impl Graph {
    fn with_capacity(peers: usize, edges: usize) -> Graph {
        let mut starts = Vec::with_capacity(peers + 1);
        starts.push(0);
        Graph {
            starts,
            edges: Vec::with_capacity(edges),
        }
    }

    /// Ends the row of a peer.
    fn end_row(&mut self) {
        self.starts.push(self.edges.len() as u32);
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn row(&self, peer: usize) -> &[u32] {
        &self.edges[self.starts[peer] as usize..self.starts[peer + 1] as usize]
    }

    /// The next hop from `us` to each peer.
    fn hops(&self, us: usize, names: &[PeerName]) -> Box<[PeerName]> {
        let mut hops = vec![PeerName::UNKNOWN; self.len()];
        let mut walk = Walk::new(self.len(), us);
        while let Some(level) = walk.next_level() {
            for at in level {
                let peer = walk.queue[at] as usize;
                for &next in self.row(peer) {
                    if walk.visit(next) {
                        let direct = peer == us;
                        let next = next as usize;
                        hops[next] = if direct { names[next] } else { hops[peer] };
                    }
                }
            }
        }
        hops.into()
    }

    /// The neighbours of `us` that a walk from `source` has not seen when it comes to `us`, and
    /// from whom it comes; none if it never does.
    fn spread(&self, source: usize, us: usize, names: &[PeerName]) -> Spread {
        let mut walk = Walk::new(self.len(), source);
        let mut parent = None;
        while let Some(level) = walk.next_level() {
            for at in level {
                let peer = walk.queue[at] as usize;
                if peer == us {
                    let neighbours = self.row(us).iter();
                    let unseen = neighbours.filter(|peer| !walk.has_seen(**peer));
                    let to = unseen.map(|peer| names[*peer as usize]).collect();
                    return Spread { to, parent };
                }
                if walk.has_seen_all() {
                    let to = Box::default();
                    return Spread { to, parent };
                }
                for &next in self.row(peer) {
                    if walk.visit(next) && next as usize == us {
                        parent = Some(names[peer]);
                    }
                }
            }
        }
        Spread::default()
    }
}

/// A walk over a graph, level by level.
struct Walk {
    seen: Vec<bool>,
    /// Every peer seen, level after level; each level is put in order before it is walked.
    queue: Vec<u32>,
    /// How much of the queue was handed out.
    walked: usize,
}

impl Walk {
    fn new(peers: usize, start: usize) -> Walk {
        let mut walk = Walk {
            seen: vec![false; peers],
            queue: Vec::with_capacity(peers),
            walked: 0,
        };
        walk.visit(start as u32);
        walk
    }

    /// The places of the next level in the queue.
    fn next_level(&mut self) -> Option<std::ops::Range<usize>> {
        let level = self.walked..self.queue.len();
        self.walked = level.end;
        self.queue[level.clone()].sort_unstable();
        (!level.is_empty()).then_some(level)
    }

    /// Whether this peer is seen for the first time; if so it joins the next level.
    fn visit(&mut self, peer: u32) -> bool {
        let first = !std::mem::replace(&mut self.seen[peer as usize], true);
        if first {
            self.queue.push(peer);
        }
        first
    }

    fn has_seen(&self, peer: u32) -> bool {
        self.seen[peer as usize]
    }

    fn has_seen_all(&self) -> bool {
        self.queue.len() == self.seen.len()
    }
}

/// The graph of all connections and that of the established ones.
fn graphs(topology: &Topology, names: &[PeerName]) -> (Graph, Graph) {
    let edges = topology.peers().map(|peer| peer.connections.len()).sum();
    let mut all = Graph::with_capacity(names.len(), edges);
    let mut said = Vec::with_capacity(edges);
    for peer in topology.peers() {
        resolve(names, &peer.connections, |remote, connection| {
            if let Some(remote) = remote {
                all.edges.push(remote as u32);
                said.push(connection.established);
            }
        });
        all.end_row();
    }
    // An edge is established if the remote says so too. Peers come in order, and so do the edges
    // of the remote, so each row is read once from front to back.
    let mut established = Graph::with_capacity(names.len(), edges);
    let mut cursors: Vec<u32> = all.starts.clone();
    for peer in 0..names.len() {
        let (start, end) = (all.starts[peer] as usize, all.starts[peer + 1] as usize);
        for edge in start..end {
            let remote = all.edges[edge] as usize;
            let row_end = all.starts[remote + 1];
            let cursor = &mut cursors[remote];
            while *cursor < row_end && (all.edges[*cursor as usize] as usize) < peer {
                *cursor += 1;
            }
            let back = *cursor as usize;
            let listed = *cursor < row_end && all.edges[back] as usize == peer;
            if listed && said[edge] && said[back] {
                established.edges.push(remote as u32);
            }
        }
        established.end_row();
    }
    (all, established)
}
