//! Connections between hosts: bytes in order, some time after they were sent, until they break.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use proto::types::{ConnId, Time};

use super::world::{PORT, What, World};

/// A connection; side 0 dialled it.
pub(crate) struct Pipe {
    pub(crate) hosts: [usize; 2],
    pub(crate) conns: [ConnId; 2],
    pub(crate) queues: [VecDeque<Vec<u8>>; 2],
    /// When the last piece in each direction arrives.
    pub(crate) last: [Time; 2],
    pub(crate) open: [bool; 2],
}

impl World {
    /// Breaks a connection at random; one end may not notice.
    pub(crate) fn break_connection(&mut self, silent: bool) {
        let open: Vec<usize> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.open == [true; 2])
            .map(|(id, _)| *id)
            .collect();
        if let Some(&pipe) = self.rng.choice(&open) {
            let side = self.rng.usize(..2);
            let (host, conn) = (self.pipes[&pipe].hosts[side], self.pipes[&pipe].conns[side]);
            self.close_end(pipe, side, silent);
            self.hosts[host].conns.remove(&conn);
            self.with(host, |node, now| {
                node.handle_closed(now, conn, Some("connection reset by peer"));
            });
        }
    }

    /// Somebody connects to a host and talks nonsense, or nothing.
    pub(crate) fn pester(&mut self, host: usize) {
        let secret = self.secret();
        let from = SocketAddr::from(([203, 0, 113, self.rng.u8(..)], self.rng.u16(1..)));
        let len = self.rng.usize(..64);
        let mut bytes = b"weave\x01\x02\x00".to_vec();
        bytes.truncate(self.rng.usize(..=8));
        bytes.extend((0..len).map(|_| self.rng.u8(..)));
        self.with(host, |node, now| {
            let conn = node.handle_accepted(now, from, secret);
            node.handle_bytes(now, conn, &bytes);
        });
    }

    pub(crate) fn dial(&mut self, host: usize, conn: ConnId, to: SocketAddr) {
        let start = self.hosts[host].starts;
        let at = self.now + self.latency() * 2;
        self.schedule(
            at,
            What::Dialled {
                host,
                start,
                conn,
                to,
            },
        );
    }

    pub(crate) fn dialled(&mut self, host: usize, start: u32, conn: ConnId, to: SocketAddr) {
        if self.hosts[host].starts != start || !self.is_up(host) {
            return;
        }
        let far = self.hosts.iter().position(|h| {
            to == SocketAddr::from((h.ip, PORT)) && h.nat.is_none() && h.node.is_some()
        });
        let blocked = far.is_some_and(|far| self.is_blocked(host, far));
        let Some(far) = far.filter(|_| !blocked) else {
            let down = self
                .hosts
                .iter()
                .any(|h| SocketAddr::from((h.ip, PORT)) == to && h.node.is_some());
            if blocked || down {
                let at = self.now + Duration::from_secs(3);
                self.schedule(at, What::DialTimeout { host, start, conn });
                return;
            }
            self.with(host, |node, now| {
                node.handle_dial_failed(now, conn, "connection refused");
            });
            return;
        };
        let port = self.rng.u16(32768..);
        let ip = self.hosts[host]
            .nat
            .map_or(self.hosts[host].ip, |nat| *nat.ip());
        let from = SocketAddr::from((ip, port));
        let (near_secret, far_secret) = (self.secret(), self.secret());
        let id = self.pipes_made;
        self.pipes_made += 1;
        let now = self.now;
        self.pipes.insert(
            id,
            Pipe {
                hosts: [host, far],
                conns: [conn, ConnId(0)],
                queues: Default::default(),
                last: [now; 2],
                open: [true; 2],
            },
        );
        self.hosts[host].conns.insert(conn, (id, 0));
        // The name of the accepted connection is known before its first output is executed.
        let far_node = self.hosts[far].node.as_mut();
        let Some(far_conn) = far_node.map(|node| node.handle_accepted(now, from, far_secret))
        else {
            return;
        };
        self.hosts[far].conns.insert(far_conn, (id, 1));
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.conns[1] = far_conn;
        }
        self.with(far, |_, _| ());
        self.with(host, |node, now| {
            node.handle_dialled(now, conn, to, near_secret)
        });
    }

    pub(crate) fn send(&mut self, host: usize, conn: ConnId, bytes: Vec<u8>) {
        self.tcp_bytes += bytes.len() as u64;
        let Some(&(id, side)) = self.hosts[host].conns.get(&conn) else {
            return;
        };
        let latency = self.latency();
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let at = (self.now + latency).max(pipe.last[side]);
        pipe.last[side] = at;
        pipe.queues[side].push_back(bytes);
        self.schedule(
            at,
            What::Bytes {
                pipe: id,
                to: 1 - side,
            },
        );
    }

    pub(crate) fn bytes(&mut self, id: usize, to: usize) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let (near, far) = (pipe.hosts[1 - to], pipe.hosts[to]);
        if self.is_blocked(near, far) || self.hosts[far].deaf {
            // What TCP cannot deliver it tries again.
            let at = self.now + Duration::from_millis(200);
            self.schedule(at, What::Bytes { pipe: id, to });
            return;
        }
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let Some(bytes) = pipe.queues[1 - to].pop_front() else {
            return;
        };
        let (near_conn, far_conn) = (pipe.conns[1 - to], pipe.conns[to]);
        if !pipe.open[to] {
            // Nobody is there any more, and says so.
            let at = self.now + Duration::from_micros(100);
            self.schedule(
                at,
                What::Reset {
                    pipe: id,
                    to: 1 - to,
                },
            );
            return;
        }
        let open = pipe.open[1 - to];
        let cut = if self.rng.u32(..8) == 0 {
            self.rng.usize(..=bytes.len())
        } else {
            0
        };
        let (first, second) = bytes.split_at(cut);
        for piece in [first, second] {
            if !piece.is_empty() {
                self.with(far, |node, now| node.handle_bytes(now, far_conn, piece));
            }
        }
        if open {
            self.with(near, |node, now| {
                node.handle_sent(now, near_conn, bytes.len())
            });
        }
    }

    /// One end of a connection is closed; the other learns of it, unless that is lost.
    pub(crate) fn close_end(&mut self, id: usize, side: usize, silent: bool) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        pipe.open[side] = false;
        if pipe.open == [false; 2] {
            self.pipes.remove(&id);
        } else if !silent {
            let at = pipe.last[side].max(self.now + Duration::from_micros(100));
            self.schedule(
                at,
                What::Reset {
                    pipe: id,
                    to: 1 - side,
                },
            );
        }
    }

    pub(crate) fn reset(&mut self, id: usize, to: usize) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (host, conn, open) = (pipe.hosts[to], pipe.conns[to], pipe.open[to]);
        if self.is_blocked(host, pipe.hosts[1 - to]) {
            // Lost: only what this end sends later can bring it up.
            return;
        }
        if open {
            self.hosts[host].conns.remove(&conn);
            let error = self.rng.bool().then_some("connection reset by peer");
            self.with(host, |node, now| node.handle_closed(now, conn, error));
        }
        self.pipes.remove(&id);
    }
}
