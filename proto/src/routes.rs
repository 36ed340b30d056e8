//! Routes, computed from the topology exactly as every other peer computes them.
//!
//! Each peer decides alone where to send. A frame reaches each peer exactly once only if all peers
//! walk the same graph in the same order: breadth first, each level sorted by name.
//!
//! There are two graphs. The *established* one has an edge between two peers that both say their
//! connection is established; frames follow it. The graph of *all* connections has a directed edge
//! for every listed one; gossip follows that, so that it also reaches peers without an overlay.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::topology::{Topology, resolve};
use crate::types::PeerName;

/// The routes for one state of the topology. Immutable, so threads may share it.
#[derive(Debug)]
pub struct Routes {
    us: usize,
    /// All peers in order. Elsewhere a peer is represented by its index here.
    names: Box<[PeerName]>,
    established: Layer,
    all: Layer,
}

impl Routes {
    /// Calculates the routes of a topology.
    ///
    /// Broadcast routes of other peers are computed when they are first needed.
    ///
    /// Rule: `docs/protocol/mesh.md#7-routes`.
    pub fn calculate(topology: &Topology) -> Routes {
        let names: Box<[PeerName]> = topology.names().collect();
        // Our own entry always exists.
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

    /// Returns our own name.
    pub fn us(&self) -> PeerName {
        self.names.get(self.us).copied().unwrap_or_default()
    }

    /// Returns all known peers in order of names, ourselves among them.
    pub fn peers(&self) -> &[PeerName] {
        &self.names
    }

    /// Returns the next hop for frames to `dest`, or `None` for ourselves and for unreachable
    /// peers.
    pub fn unicast(&self, dest: PeerName) -> Option<PeerName> {
        self.hop(&self.established, dest)
    }

    /// Returns the next hop for gossip to `dest`, or `None` for ourselves and for unreachable
    /// peers.
    pub fn unicast_all(&self, dest: PeerName) -> Option<PeerName> {
        self.hop(&self.all, dest)
    }

    /// Returns the neighbours to which broadcast frames of `source` are forwarded, sorted by name.
    pub fn broadcast(&self, source: PeerName) -> &[PeerName] {
        self.spread(&self.established, source)
    }

    /// Returns the neighbour that sends us the broadcast frames of `source`, if it sees the mesh as
    /// we do; `None` for our own frames and those of peers that cannot reach us. Frames of `source`
    /// that come from another neighbour but `source` itself came a second way, or in a circle.
    pub fn parent(&self, source: PeerName) -> Option<PeerName> {
        self.spread_of(&self.established, source)?.parent
    }

    /// Returns the neighbours to which broadcast gossip of `source` is forwarded, sorted by name.
    pub fn broadcast_all(&self, source: PeerName) -> &[PeerName] {
        self.spread(&self.all, source)
    }

    /// Returns all peers to which frames can be sent, each with its next hop, sorted by name;
    /// ourselves with [`PeerName::UNKNOWN`].
    pub fn unicast_table(&self) -> impl Iterator<Item = (PeerName, PeerName)> {
        let hops = self.names.iter().zip(&self.established.hops);
        hops.enumerate()
            .filter(|(index, (_, via))| *index == self.us || **via != PeerName::UNKNOWN)
            .map(|(_, (dest, via))| (*dest, *via))
    }

    /// Returns the broadcast routes for frames that were computed so far, including ours.
    pub fn broadcast_table(&self) -> impl Iterator<Item = (PeerName, &[PeerName])> {
        let spreads = self.names.iter().zip(&self.established.spreads);
        spreads.filter_map(|(source, spread)| Some((*source, spread.get()?.next.as_ref())))
    }

    /// Returns true if a path of connections, established or not, leads from us to `peer`.
    pub fn is_reachable(&self, peer: PeerName) -> bool {
        peer == self.us() || self.unicast_all(peer).is_some()
    }

    /// Returns for each neighbour the number of peers that gossip reaches through it. `except` is
    /// left out.
    ///
    /// Rule: `docs/protocol/mesh.md#5-5-random-neighbours`.
    pub fn neighbour_weights(&self, except: Option<PeerName>) -> BTreeMap<PeerName, usize> {
        let mut weights = BTreeMap::new();
        for via in &self.all.hops {
            if *via != PeerName::UNKNOWN && Some(*via) != except {
                *weights.entry(*via).or_default() += 1;
            }
        }
        weights
    }

    /// Returns how many of `available` neighbours receive each gossip message: at most twice the
    /// binary logarithm of the number of reachable peers.
    ///
    /// Rule: `docs/protocol/mesh.md#5-5-random-neighbours`.
    pub fn fan_out(&self, available: usize) -> usize {
        let others = self.all.hops.iter();
        let reached = 1 + others.filter(|via| **via != PeerName::UNKNOWN).count() as u64;
        // floor(2 * log2(n)) is floor(log2(n * n)), without rounding errors.
        available.min(reached.saturating_mul(reached).ilog2() as usize)
    }

    /// Draws the neighbours to gossip to, with probabilities in proportion to the number of peers
    /// behind them. `except`, from which the gossip came, is left out.
    ///
    /// Rule: `docs/protocol/mesh.md#5-5-random-neighbours`.
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

    fn spread<'s>(&'s self, layer: &'s Layer, source: PeerName) -> &'s [PeerName] {
        let spread = self.spread_of(layer, source);
        spread.map_or(&[], |spread| &spread.next)
    }

    fn spread_of<'s>(&'s self, layer: &'s Layer, source: PeerName) -> Option<&'s Spread> {
        let source = self.index(source)?;
        let spread = layer.spreads.get(source)?;
        Some(spread.get_or_init(|| layer.graph.spread(source, self.us, &self.names)))
    }
}

/// How the broadcasts of one source pass through us.
#[derive(Debug, Default)]
struct Spread {
    /// From whom they come.
    parent: Option<PeerName>,
    /// To whom they go on.
    next: Box<[PeerName]>,
}

/// A graph and the routes computed from it.
#[derive(Debug)]
struct Layer {
    graph: Graph,
    /// For each peer the next hop, or [`PeerName::UNKNOWN`].
    hops: Box<[PeerName]>,
    /// For each source, the neighbours to which its broadcasts go from here.
    spreads: Box<[OnceLock<Spread>]>,
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

/// Packed edges: those of peer `p` are `edges[starts[p]..starts[p + 1]]`, sorted.
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

    /// Returns the next hop from `us` to each peer.
    ///
    /// Rule: `docs/protocol/mesh.md#7-3-tables`.
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

    /// Returns how a walk from `source` passes through `us`: whose row leads there first, and the
    /// neighbours of `us` that it has not seen when it comes to `us`; nothing if it never does.
    fn spread(&self, source: usize, us: usize, names: &[PeerName]) -> Spread {
        let mut walk = Walk::new(self.len(), source);
        let mut spread = Spread::default();
        while let Some(level) = walk.next_level() {
            for at in level {
                let peer = walk.queue[at] as usize;
                if peer == us {
                    let neighbours = self.row(us).iter();
                    let unseen = neighbours.filter(|peer| !walk.has_seen(**peer));
                    spread.next = unseen.map(|peer| names[*peer as usize]).collect();
                    return spread;
                }
                if walk.has_seen_all() {
                    return spread;
                }
                for &next in self.row(peer) {
                    if walk.visit(next) && next as usize == us {
                        spread.parent = names.get(peer).copied();
                    }
                }
            }
        }
        spread
    }
}

/// A breadth-first walk over a graph.
///
/// Rule: `docs/protocol/mesh.md#7-2-walk`.
struct Walk {
    seen: Vec<bool>,
    /// Every visited peer, level by level. Each level is sorted before it is walked.
    queue: Vec<u32>,
    /// Number of queue entries that were returned.
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

    /// Returns the range of the next level in the queue.
    fn next_level(&mut self) -> Option<std::ops::Range<usize>> {
        let level = self.walked..self.queue.len();
        self.walked = level.end;
        self.queue[level.clone()].sort_unstable();
        (!level.is_empty()).then_some(level)
    }

    /// Visits a peer. Returns true if it was not visited before; it then joins the next level.
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

/// Returns the graph of all connections, and that of the established ones.
///
/// Rule: `docs/protocol/mesh.md#7-1-graphs`.
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
    // An edge is established if the remote says so too. Peers and the edges of each remote are
    // sorted, so each row is read once from front to back.
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
