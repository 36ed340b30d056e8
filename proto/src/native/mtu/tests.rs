use super::*;

const NONE: [usize; 0] = [];
const RTT: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

#[test]
fn the_device_decides_when_the_path_takes_all_of_it() {
    let mut search = MtuSearch::new();
    assert!(search.is_off());
    assert_eq!(search.start(at(1), RTT), [65535, 1280]);
    assert_eq!(search.handle_too_big(at(1), RTT, 1500), [1500, 1280]);
    assert_eq!(search.handle_too_big(at(1), RTT, 1500), NONE);
    assert!(search.is_looking());
    assert_eq!(search.handle_arrived(at(2), RTT, at(1), 1280), NONE);
    assert_eq!(search.size(), None);
    assert_eq!(search.handle_arrived(at(2), RTT, at(1), 1500), NONE);
    assert_eq!(search.size(), Some(1500));
    assert!(!search.is_looking());
    assert_eq!(search.handle_too_big(at(3), RTT, 1500), NONE);
}

#[test]
fn answers_to_what_was_never_sent_are_not_believed() {
    let mut search = MtuSearch::new();
    search.handle_too_big(at(0), RTT, 1500);
    search.start(at(5), RTT);
    assert_eq!(search.handle_arrived(at(6), RTT, at(5), 1501), NONE);
    assert_eq!(search.handle_arrived(at(6), RTT, at(4), 1500), NONE);
    assert!(search.is_looking());
    assert_eq!(search.size(), None);
}

#[test]
fn a_path_that_takes_nothing_is_looked_at_ever_more_rarely() {
    let mut search = MtuSearch::new();
    search.handle_too_big(at(0), RTT, 1500);
    search.start(at(0), RTT);
    let mut sent = 0;
    while let Some(next) = search.poll_timeout().filter(|next| *next < at(60_000)) {
        sent += search.handle_timeout(next, RTT).iter().sum::<usize>();
    }
    assert!(sent < 60 * 22_000, "{sent} bytes");
    assert!(search.is_looking());
    // What arrives at last is taken.
    let now = search.poll_timeout().unwrap();
    search.handle_arrived(now, RTT, at(59_000), 576);
    search.handle_timeout(now, RTT);
    assert_eq!(search.size(), Some(576));
}

#[test]
fn an_early_or_late_call_changes_nothing() {
    let mut search = MtuSearch::new();
    assert_eq!(search.handle_timeout(at(100), RTT), NONE);
    assert_eq!(search.suspect(at(100), RTT), NONE);
    search.handle_too_big(at(100), RTT, 1500);
    search.start(at(100), RTT);
    assert_eq!(search.suspect(at(101), RTT), NONE);
    assert_eq!(search.handle_timeout(at(101), RTT), NONE);
    search.handle_arrived(at(102), RTT, at(100), 1500);
    assert_eq!(search.handle_timeout(at(103), RTT), NONE);
    assert_eq!(search.suspect(at(104), RTT), [1500]);
    assert_eq!(search.handle_arrived(at(105), RTT, at(104), 1500), NONE);
    assert_eq!(search.size(), Some(1500));
    // The answer to the test from before the suspicion proves nothing about now.
    assert_eq!(search.suspect(at(106), RTT), [1500]);
    search.handle_arrived(at(107), RTT, at(104), 1500);
    assert!(search.poll_timeout().is_some_and(|next| next < at(1000)));
}
