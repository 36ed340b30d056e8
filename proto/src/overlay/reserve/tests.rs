use super::*;

const UID: ConnUid = ConnUid(7);

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

fn confirmed() -> Reserve {
    let mut reserve = Reserve::new(UID);
    reserve.confirm(at(0));
    reserve
}

#[test]
fn sleeve_waits_for_a_native_link_that_comes_about() {
    let mut reserve = confirmed();
    assert_eq!(reserve.poll_timeout(), Some(at(1500)));
    assert_eq!(reserve.review(at(1499), Native::Pending), None);
    assert_eq!(reserve.review(at(1499), Native::Well), None);
    assert_eq!(reserve.poll_timeout(), None);
    assert_eq!(reserve.review(at(99_000), Native::Well), None);
}

#[test]
fn sleeve_begins_when_the_native_link_does_not() {
    let mut late = confirmed();
    assert_eq!(late.review(at(1500), Native::Pending), Some(Change::Warm));
    let mut ill = confirmed();
    assert_eq!(ill.review(at(10), Native::Ill), Some(Change::Warm));
    assert_eq!(ill.review(at(11), Native::Ill), None);
}

#[test]
fn sleeve_ends_when_the_native_link_was_well_for_a_while() {
    let mut reserve = confirmed();
    assert_eq!(reserve.review(at(10), Native::Ill), Some(Change::Warm));
    assert_eq!(reserve.review(at(1000), Native::Well), None);
    assert_eq!(reserve.review(at(20_000), Native::Ill), None);
    assert_eq!(reserve.review(at(21_000), Native::Well), None);
    assert_eq!(reserve.poll_timeout(), Some(at(51_000)));
    assert_eq!(reserve.review(at(50_999), Native::Well), None);
    assert_eq!(reserve.review(at(51_000), Native::Well), Some(Change::Cool));
    assert_eq!(reserve.poll_timeout(), None);
}

#[test]
fn a_peer_that_begins_to_use_sleeve_is_heard_and_one_that_ends_is_not() {
    let heartbeat = Special::Heartbeat(UID);
    let mut reserve = confirmed();
    // Every 10 s, as an end that has not left it yet.
    for n in 0..5 {
        assert_eq!(reserve.hear(at(n * 10_000), heartbeat), None);
    }
    let other = Special::Heartbeat(ConnUid(8));
    assert_eq!(reserve.hear(at(40_010), other), None);
    assert_eq!(reserve.hear(at(40_020), heartbeat), Some(Change::Warm));
    assert_eq!(reserve.hear(at(40_030), heartbeat), None);
}

#[test]
fn silence_does_not_make_it_live_longer() {
    let mut reserve = confirmed();
    assert_eq!(reserve.hopeless_at(), Time::ZERO);
    assert_eq!(reserve.review(at(10), Native::Ill), Some(Change::Warm));
    let hopeless = at(10) + HEARTBEAT_TIMEOUT;
    assert_eq!(reserve.hopeless_at(), hopeless);
    assert_eq!(reserve.handle_silence(Native::Ill), Some(Change::Warm));
    assert_eq!(reserve.hopeless_at(), hopeless);
    assert_eq!(reserve.handle_silence(Native::Well), None);
    assert_eq!(reserve.review(at(90_000), Native::Well), None);
    assert_eq!(reserve.poll_timeout(), None);
}
