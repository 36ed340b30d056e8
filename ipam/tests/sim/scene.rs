//! Scenes: what a test makes happen step by step, without anything random.

use ipam::allocator::{Alarm, Request, RequestError, Response};
use ipam::leases::{Identity, IdentityKind, Lease};
use ipam::range::{Address, Cidr};
use proto::types::Mac;

use crate::host::Asked;
use crate::plan::{Plan, Planted};
use crate::weave::Weave;
use crate::world::{Machine, SECOND, World};

pub(crate) type Answer = Result<Response, RequestError>;

pub(crate) fn explicit(name: &str) -> Identity {
    Identity::new(IdentityKind::Explicit, name).unwrap()
}

impl World {
    /// Routers that have met and made their ring, without users and faults.
    pub(crate) fn scene(weft: usize, weave: usize, universe: &str) -> World {
        World::scene_of(Plan {
            weave,
            seeded: true,
            universe: universe.parse().unwrap(),
            ..Plan::calm(7, weft)
        })
    }

    /// The same, in which the operator is going to do what must not be done.
    pub(crate) fn misuse(weft: usize) -> World {
        World::scene_of(Plan {
            seeded: true,
            planted: Planted::RemovesLiving,
            ..Plan::calm(7, weft)
        })
    }

    pub(crate) fn scene_of(plan: Plan) -> World {
        let mut world = World::new(plan, true);
        world.users = false;
        world.pass(10);
        world
    }

    /// Time passes, in seconds.
    #[track_caller]
    pub(crate) fn pass(&mut self, seconds: u64) {
        let end = self.now + seconds * SECOND;
        self.run_checked(end);
    }

    #[track_caller]
    fn run_checked(&mut self, end: u64) {
        if let Err(error) = self.run_until(end) {
            let trace: Vec<String> = self.watch.trace.drain(..).collect();
            panic!("{}\n{error}", trace.join("\n"));
        }
    }

    /// Asks a router and waits for the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, node: usize, seconds_max: u64, request: Request) -> Answer {
        self.answer = None;
        self.request(node, Asked::Scene, Some(seconds_max), request);
        let end = self.now + (seconds_max + 1) * SECOND;
        while self.now < end {
            if let Some(answer) = self.answer.take() {
                return answer;
            }
            self.run_checked(self.now + SECOND / 1000);
        }
        panic!("no answer");
    }

    /// Starts a container with an identity.
    #[track_caller]
    pub(crate) fn up(&mut self, node: usize, id: &str, who: &Identity) -> Answer {
        let request = Request::Allocate {
            id: id.to_owned(),
            subnet: None,
            identity: Some(who.clone()),
            container: true,
        };
        self.ask(node, 5, request)
    }

    /// Starts a container without one.
    #[track_caller]
    pub(crate) fn plain_up(&mut self, node: usize, id: &str) -> Answer {
        let request = Request::Allocate {
            id: id.to_owned(),
            subnet: None,
            identity: None,
            container: true,
        };
        self.ask(node, 5, request)
    }

    #[track_caller]
    pub(crate) fn down(&mut self, node: usize, id: &str) {
        let request = Request::Delete { id: id.to_owned() };
        assert_eq!(self.ask(node, 5, request), Ok(Response::Done));
    }

    #[track_caller]
    pub(crate) fn remove_peer(&mut self, node: usize, lost: usize, seconds_max: u64) -> Answer {
        let request = Request::RemovePeer {
            peer: self.nodes[lost].name.to_string(),
            confirmed: true,
        };
        self.ask(node, seconds_max, request)
    }

    pub(crate) fn with_weave(&mut self, node: usize, act: impl FnOnce(&mut Weave)) {
        self.weave(node, act);
    }

    /// Returns the lease of an identity as a router knows it, if it is live.
    pub(crate) fn lease(&self, node: usize, who: &Identity) -> Option<Lease> {
        let Machine::Weft(host) = &self.nodes[node].machine else {
            return None;
        };
        let table = host.allocator.as_ref().unwrap().lease_table();
        let key = who.key(self.plan.universe);
        table.get(&key).filter(|lease| lease.is_live()).cloned()
    }

    /// The process of a router dies, and its store with it.
    pub(crate) fn lose_store(&mut self, node: usize) {
        self.crash(node);
        if let Machine::Weft(host) = &mut self.nodes[node].machine {
            host.disk.durable.clear();
        }
    }

    pub(crate) fn has_alarm(&self, is: impl Fn(&Alarm) -> bool) -> bool {
        self.watch.alarms.iter().any(is)
    }

    /// Returns who owns an address, as a router sees it.
    pub(crate) fn owner(&self, node: usize, address: Address) -> Option<usize> {
        let Machine::Weft(host) = &self.nodes[node].machine else {
            return None;
        };
        let owner = host.allocator.as_ref().unwrap().ring().owner(address)?;
        self.index(owner)
    }
}

/// Returns what was answered to a request for an address.
#[track_caller]
pub(crate) fn given(answer: Answer) -> (Cidr, Option<Mac>) {
    match answer {
        Ok(Response::Address { cidr, mac }) => (cidr, mac),
        other => panic!("{other:?}"),
    }
}

/// Returns what was said instead of an address.
#[track_caller]
pub(crate) fn refused(answer: Answer) -> String {
    answer.unwrap_err().to_string()
}
