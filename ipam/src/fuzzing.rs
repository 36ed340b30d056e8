//! Entry points for fuzzing and for the replay of its finds: each takes any bytes, and panics
//! only if something is wrong.

use proto::types::{PeerName, Time};

use crate::allocator::{
    Allocator, Channel, Clock, Config, Delivery, Incoming, Init, Origin, Output, Peer, Request,
    RequestId,
};
use crate::import::WeaveState;
use crate::leases::{Identity, IdentityKind};
use crate::persist::Stored;
use crate::range::{Address, Cidr};

/// A message of the ring's channel, in each way that one can come.
pub fn fuzz_ring_message(data: &[u8]) {
    feed(Channel::Ring, data);
}

/// A message of the leases' channel, in each way that one can come.
pub fn fuzz_lease_message(data: &[u8]) {
    feed(Channel::Leases, data);
}

/// A data base of Weave Net.
pub fn fuzz_weave_database(data: &[u8]) {
    let _ = WeaveState::from_file(data);
}

/// A record of the store: a byte that says how long its key is, the key, the value.
pub fn fuzz_record(data: &[u8]) {
    let Some((len, rest)) = data.split_first() else {
        return;
    };
    if let Some((key, value)) = rest.split_at_checked(usize::from(*len)) {
        let _ = Stored::default().insert(key, value);
    }
}

fn peer(number: u8) -> PeerName {
    PeerName::from_bytes([2, 0, 0, 0, 0, number])
}

/// Returns an allocator with a ring of two, an address in use and a lease. Its universe is
/// 10.7.0.0/24, its own name 02:00:00:00:00:01, and 02:00:00:00:00:02 is the other's.
#[doc(hidden)]
pub fn busy_allocator() -> Allocator {
    let clock = clock(1);
    let universe = Cidr {
        address: Address::new(0x0a07_0000),
        len: 24,
    };
    let config = Config {
        name: peer(1),
        nickname: "one".to_owned(),
        universe,
        universe_defaulted: false,
        default_subnet: None,
        init: Init::Seed(vec![peer(1), peer(2)]),
        uid: 1,
        lease_retention: 1000,
        await_found: false,
        rng_seed: 1,
    };
    let allocator = Allocator::new(clock, config, Stored::default(), Origin::Store);
    #[allow(clippy::expect_used, reason = "it is made here, of what is valid")]
    let mut allocator = allocator.expect("a valid state");
    let other = Peer {
        name: peer(2),
        nickname: "two".to_owned(),
        reachable: true,
    };
    allocator.handle_peers(clock, vec![other]);
    settle(&mut allocator, clock);
    for (number, name) in [None, Some("web")].into_iter().enumerate() {
        let identity = name.and_then(|name| Identity::new(IdentityKind::Explicit, name).ok());
        let request = Request::Allocate {
            id: format!("c{number}"),
            subnet: None,
            identity,
            container: true,
        };
        // After the time in which others may know more.
        allocator.handle_request(self::clock(5), RequestId(number as u64), None, request);
        settle(&mut allocator, self::clock(5));
    }
    allocator
}

fn clock(seconds: u64) -> Clock {
    Clock {
        now: Time::from_micros(seconds * 1_000_000),
        wall: 1_700_000_000 + seconds,
    }
}

/// Acknowledges everything that the allocator wants saved.
fn settle(allocator: &mut Allocator, clock: Clock) {
    // Each batch may lead to others, but no message may lead to endless batches.
    for _ in 0..1000 {
        let mut last = None;
        while let Some(output) = allocator.poll_output() {
            if let Output::Persist(batch) = output {
                last = Some(batch.id);
            }
        }
        match last {
            Some(last) => allocator.handle_persisted(clock, last, Ok(())),
            None => return,
        }
    }
    assert!(
        allocator.poll_output().is_none(),
        "it never comes to an end"
    );
}

fn feed(channel: Channel, payload: &[u8]) {
    let mut allocator = busy_allocator();
    let other = peer(2);
    for (second, kind) in (10..).step_by(20).zip([
        Delivery::Gossip,
        Delivery::Broadcast(other),
        Delivery::Unicast(other),
    ]) {
        let message = Incoming {
            channel,
            kind,
            via: other,
            payload,
        };
        allocator.handle_message(clock(second), message);
        settle(&mut allocator, clock(second));
        allocator.handle_timeout(clock(second + 10));
        settle(&mut allocator, clock(second + 10));
        let state = allocator.check();
        assert!(state.is_ok(), "{state:?}");
    }
}
