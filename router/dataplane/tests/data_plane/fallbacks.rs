//! Traffic flows whatever the kernel refuses.

use boundary::counters::Count;
use dataplane::udp::feature::FeatureState;
use testbed::rig::{Options, Trial};

use crate::support::*;

/// Returns the planes of the last overlay that was tried.
fn check(change: impl Fn(&mut Options)) -> Trial {
    let [_, sealed, native] = overlays().map(|mut options| {
        change(&mut options);
        options
    });
    drop(check_with(&native));
    check_with(&sealed)
}

fn check_with(options: &Options) -> Trial {
    let trial = Trial::pair(options).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        for address in Trial::addresses(to) {
            transfer(&trial, from, to, address, 2_000_000);
        }
    }
    for (to, address) in [(1, Trial::address(1)), (0, Trial::address(0))] {
        let from = udp(
            &trial.hosts[1 - to].container,
            Trial::address(1 - to).into(),
        );
        let into = udp(&trial.hosts[to].container, address.into());
        assert!(datagram_arrives(&from, &into, &pattern(5000)));
    }
    check_balance(&trial);
    trial
}

#[test]
fn without_segmentation_by_the_kernel() {
    needs_root!();
    let trial = check(|options| options.gso = false);
    let status = trial.hosts[0].plane.status();
    assert_eq!(status.udp.gso, FeatureState::SwitchedOff);
}

#[test]
fn without_joining_by_the_kernel() {
    needs_root!();
    let trial = check(|options| options.gro = false);
    let status = trial.hosts[0].plane.status();
    assert_eq!(status.udp.gro, FeatureState::SwitchedOff);
}

#[test]
fn without_offloads_of_the_device() {
    needs_root!();
    let trial = check(|options| options.offload = false);
    // Each read gives one frame, no longer than the MTU.
    let reads = count(&trial, 0, Count::TapReads);
    assert_eq!(count(&trial, 0, Count::Captured), reads);
}

#[test]
fn without_joining_of_our_own() {
    needs_root!();
    let trial = check(|options| options.join = false);
    let writes = count(&trial, 1, Count::TapWrites);
    assert_eq!(count(&trial, 1, Count::Injected), writes);
}

#[test]
fn without_any_offload() {
    needs_root!();
    check(|options| {
        options.gso = false;
        options.gro = false;
        options.offload = false;
        options.join = false;
        options.key = None;
    });
}

#[test]
fn one_side_with_and_one_without_offloads() {
    needs_root!();
    let mut trial = Trial::pair(&Options::default()).unwrap();
    let plain = Options {
        gso: false,
        gro: false,
        offload: false,
        join: false,
        ..Options::default()
    };
    trial.restart(1, &plain).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        transfer(&trial, from, to, Trial::address(to).into(), 1_000_000);
    }
    check_balance(&trial);
}

#[test]
fn with_several_queues() {
    needs_root!();
    let trial = check(|options| options.queues = 3);
    assert_eq!(trial.hosts[0].plane.status().queues, 3);
}

/// The next start finds the device of the one before; one with another kind of queues makes it
/// again.
#[test]
fn a_device_is_adopted_or_made_again() {
    needs_root!();
    let mut trial = Trial::pair(&Options::default()).unwrap();
    let adopted = |trial: &Trial| trial.hosts[0].plane.status().tap.adopted;
    assert!(!adopted(&trial));
    let no_offload = Options {
        offload: false,
        ..Options::default()
    };
    let queues = Options {
        queues: 2,
        ..Options::default()
    };
    for (options, expected) in [
        (no_offload, true),
        (Options::default(), true),
        (queues.clone(), false),
        (queues, true),
        (Options::default(), false),
    ] {
        trial.restart(0, &options).unwrap();
        trial.restart(1, &options).unwrap();
        assert_eq!(adopted(&trial), expected);
        assert_eq!(
            trial.hosts[0].plane.status().tap.offload.tcp(),
            options.offload
        );
        transfer(&trial, 0, 1, Trial::address(1).into(), 300_000);
    }
}
