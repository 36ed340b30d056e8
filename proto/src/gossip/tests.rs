use super::*;

const CHANNEL: ChannelId = ChannelId(1);

fn name(n: u64) -> PeerName {
    PeerName::from_u64(n).unwrap()
}

fn payload(len: usize, byte: u8) -> News {
    News::Payload(vec![byte; len].into())
}

fn drain(outbox: &mut Outbox) -> Vec<Item> {
    std::iter::from_fn(|| outbox.pop(100)).collect()
}

#[test]
fn unicasts_overtake_gossip_and_gossip_overtakes_broadcasts() {
    let mut outbox = Outbox::default();
    let everybody = Reach::Everybody(name(1));
    outbox.push(CHANNEL, everybody, payload(1, 1), false);
    outbox.push(CHANNEL, Reach::Neighbour, payload(1, 2), false);
    assert!(outbox.push_unicast(vec![3]));
    assert_eq!(
        drain(&mut outbox),
        [
            Item::Message(vec![3]),
            Item::News(CHANNEL, Reach::Neighbour, payload(1, 2)),
            Item::News(CHANNEL, everybody, payload(1, 1)),
        ]
    );
    assert_eq!(outbox.waiting_bytes(), 0);
}

#[test]
fn names_merge_and_come_in_portions() {
    let mut outbox = Outbox::default();
    for n in [5, 1, 3, 1, 5] {
        let news = News::Peers([name(n)].into());
        outbox.push(ChannelId(0), Reach::Neighbour, news, true);
    }
    let portion = |names: &[u64]| {
        let names = names.iter().map(|n| name(*n)).collect();
        Some(Item::News(
            ChannelId(0),
            Reach::Neighbour,
            News::Peers(names),
        ))
    };
    assert_eq!(outbox.pop(2), portion(&[1, 3]));
    assert_eq!(outbox.pop(2), portion(&[5]));
    assert_eq!(outbox.pop(2), None);
}

#[test]
fn state_takes_the_place_of_all_that_waits() {
    let mut outbox = Outbox::default();
    for n in 0..3 {
        outbox.push(CHANNEL, Reach::Neighbour, payload(10, n), true);
    }
    assert_eq!(outbox.waiting_bytes(), 3 * (10 + PAYLOAD_OVERHEAD_BYTES));
    outbox.push(CHANNEL, Reach::Neighbour, News::State, true);
    outbox.push(CHANNEL, Reach::Neighbour, payload(10, 9), true);
    outbox.push(CHANNEL, Reach::Neighbour, News::State, true);
    assert_eq!(outbox.waiting_bytes(), 0);
    assert_eq!(
        drain(&mut outbox),
        [Item::News(CHANNEL, Reach::Neighbour, News::State)]
    );
}

#[test]
fn payloads_beyond_the_limit_become_the_state_or_push_out_the_oldest() {
    for has_state in [true, false] {
        let mut outbox = Outbox::default();
        let mut dropped = 0;
        for n in 0..40 {
            dropped += outbox.push(CHANNEL, Reach::Neighbour, payload(1, n), has_state);
        }
        let items = drain(&mut outbox);
        if has_state {
            assert_eq!(items, [Item::News(CHANNEL, Reach::Neighbour, News::State)]);
            assert_eq!(dropped, 0);
        } else {
            let newest: Vec<Item> = (24..40)
                .map(|n| Item::News(CHANNEL, Reach::Neighbour, payload(1, n)))
                .collect();
            assert_eq!(items, newest);
            assert_eq!(dropped, 24);
        }
    }
}

#[test]
fn a_reader_that_does_not_read_costs_a_bounded_amount() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut outbox = Outbox::default();
    outbox.add_in_flight(WINDOW_BYTES);
    let mut dropped = 0;
    for _ in 0..3000 {
        let bytes = payload(rng.usize(..200_000), 0);
        let reach = Reach::Everybody(name(rng.u64(1..50)));
        dropped += outbox.push(CHANNEL, reach, bytes, false);
        dropped += usize::from(!outbox.push_unicast(vec![0; rng.usize(..2000)]));
        assert!(outbox.waiting_bytes() <= PENDING_BYTES_MAX);
        let held: usize = outbox.pending.values().map(|p| p.payloads.len()).sum();
        assert!(held <= 50 * PENDING_PAYLOADS_MAX);
    }
    assert!(dropped > 0);
    assert_eq!(outbox.pop(1), None, "no credit");
    outbox.take_in_flight(1);
    let mut left = outbox.waiting_bytes();
    while let Some(item) = outbox.pop(1) {
        left -= match item {
            Item::Message(bytes) => bytes.len(),
            Item::News(_, _, News::Payload(bytes)) => cost(&bytes),
            Item::News(..) => 0,
        };
        assert_eq!(outbox.waiting_bytes(), left);
    }
    assert_eq!(left, 0);
    assert!(outbox.pending.is_empty());
}

#[test]
fn one_payload_larger_than_the_limit_passes_alone() {
    let mut outbox = Outbox::default();
    let big = PENDING_BYTES_MAX + 1;
    assert_eq!(
        outbox.push(CHANNEL, Reach::Neighbour, payload(big, 1), false),
        0
    );
    assert_eq!(
        outbox.push(CHANNEL, Reach::Neighbour, payload(big, 2), false),
        1
    );
    assert_eq!(outbox.waiting_bytes(), big + PAYLOAD_OVERHEAD_BYTES);
}

#[test]
fn relays_wait_with_their_routes_apart() {
    let mut relays = Relays::default();
    let from = |n| Route::Neighbours {
        except: Some(name(n)),
    };
    let peers = |names: &[u64]| News::Peers(names.iter().map(|n| name(*n)).collect());
    relays.push(ChannelId(0), from(1), peers(&[7]), true);
    relays.push(ChannelId(0), from(2), peers(&[7]), true);
    relays.push(ChannelId(0), from(1), peers(&[8]), true);
    assert_eq!(relays.pop(), Some((ChannelId(0), from(1), peers(&[7, 8]))));
    assert_eq!(relays.pop(), Some((ChannelId(0), from(2), peers(&[7]))));
    assert_eq!(relays.pop(), None);
}

#[test]
fn awaited_state_is_handed_out_once() {
    let mut outbox = Outbox::default();
    outbox.await_state(CHANNEL, Reach::Neighbour);
    outbox.await_state(CHANNEL, Reach::Neighbour);
    outbox.await_state(ChannelId(2), Reach::Neighbour);
    outbox.await_state(CHANNEL, Reach::Everybody(name(3)));
    assert_eq!(
        outbox.take_awaiting(CHANNEL),
        [Reach::Neighbour, Reach::Everybody(name(3))]
    );
    assert!(outbox.take_awaiting(CHANNEL).is_empty());
    assert_eq!(outbox.take_awaiting(ChannelId(2)), [Reach::Neighbour]);
}

#[test]
fn a_surrogate_remembers_for_one_to_two_intervals() {
    let mut seen = Seen::default();
    assert!(seen.is_new(b"a"));
    assert!(!seen.is_new(b"a"));
    assert!(seen.is_new(b"b"));
    seen.age();
    assert!(!seen.is_new(b"a"));
    seen.age();
    assert!(seen.is_new(b"a"));
    for n in 0u32..20_000 {
        seen.is_new(&n.to_be_bytes());
    }
    assert!(seen.young.len() + seen.old.len() <= 2 * SEEN_MAX);
}

#[test]
fn topology_broadcasts_of_many_sources_go_on_as_gossip() {
    let (mut relays, mut outbox) = (Relays::default(), Outbox::default());
    for n in 1..1000 {
        let (source, news) = (name(n), News::Peers([name(n)].into()));
        let id = ChannelId(0);
        relays.push(id, Route::Broadcast { source }, news.clone(), true);
        outbox.push(id, Reach::Everybody(source), news, true);
        assert!(relays.pending.len() <= PEERS_BROADCASTS_MAX + 1);
        assert!(outbox.pending.len() <= PEERS_BROADCASTS_MAX + 1);
    }
}
