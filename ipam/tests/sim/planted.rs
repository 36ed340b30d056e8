//! The checks find mistakes that are made on purpose.

use crate::plan::{Plan, Planted};
use crate::weave::Bug;
use crate::{run, trace};

/// Returns what the checks say of the first of these seeds that fails.
fn caught(plan: fn(u64) -> Plan) -> String {
    let error = (0..20).find_map(|seed| run(plan(seed)).err());
    error.expect("the checks find nothing")
}

#[test]
fn an_original_without_version_check_is_caught() {
    let error = caught(|seed| Plan {
        weave: 2,
        pace: 100_000,
        planted: Planted::Weave(Bug::NoVersionCheck),
        ..Plan::calm(seed, 3)
    });
    assert!(error.contains("differ"), "{error}");
}

#[test]
fn a_merge_without_version_check_is_caught() {
    let error = caught(|seed| Plan {
        pace: 100_000,
        planted: Planted::NoVersionCheck,
        ..Plan::calm(seed, 4)
    });
    assert!(error.contains("own") || error.contains("differ"), "{error}");
}

#[test]
fn a_grant_of_an_address_in_use_is_caught() {
    let error = caught(|seed| Plan {
        weave: 2,
        universe: "10.7.0.0/28".parse().unwrap(),
        pace: 100_000,
        planted: Planted::Weave(Bug::GrantsUsed),
        ..Plan::calm(seed, 2)
    });
    assert!(error.contains("would die"), "{error}");
}

#[test]
fn a_reply_before_the_save_is_caught() {
    let error = caught(|seed| Plan {
        planted: Planted::ReplyBeforeSave,
        ..Plan::calm(seed, 3)
    });
    assert!(error.contains("is not saved"), "{error}");
}

#[test]
fn a_store_that_forgets_addresses_is_caught() {
    let error = caught(|seed| Plan {
        crash: 0.01,
        planted: Planted::ForgetsAddresses,
        ..Plan::calm(seed, 3)
    });
    assert!(error.contains("is used by"), "{error}");
}

/// `WEFT_SIM_SEED` looks at one run, and must not call a bad one good.
#[test]
fn a_single_seed_that_fails_is_an_error() {
    let plan = |seed| Plan {
        planted: Planted::ReplyBeforeSave,
        ..Plan::calm(seed, 3)
    };
    let bad = (0..20).find(|seed| run(plan(*seed)).is_err());
    let text = trace(plan(bad.expect("a seed fails"))).expect_err("it fails again");
    assert!(text.contains("is not saved"), "{text}");
}
