//! Hosts as network namespaces, with routers that are processes: what the scenarios are made of.
//!
//! * [`Mesh`] is a lab of hosts, each with a router of [`Kind`] ours or real, and containers.
//! * [`Machine`] is a host that also runs Docker's engine.
//! * [`Container`] sends and receives; [`Capture`] is what passes an interface.
//! * [`Stranger`] speaks the protocol of the mesh and says what it likes; [`Meddler`] stands
//!   between two routers and makes them speak its first version.
//!
//! Everything panics when it does not work, with what it wanted; a mesh whose test panics prints
//! the logs of its routers. Nothing waits for a fixed time where something can be looked at: see
//! [`wait`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

mod capture;
mod container;
mod cut;
pub mod frame;
mod launch;
pub mod machine;
mod meddler;
mod mesh;
pub mod names;
mod status;
mod stranger;
pub mod wait;

use std::path::PathBuf;
use std::sync::OnceLock;

pub use capture::Capture;
pub use container::Container;
pub use cut::Cutter;
pub use launch::{Launch, Ran};
pub use machine::Machine;
pub use meddler::Meddler;
pub use mesh::{Mesh, nickname, peer_name};
pub use status::Connection;
pub use stranger::Stranger;

/// What a router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Weft,
    /// Ours without its native overlay: to its own kind as it is to real routers.
    Sleeve,
    /// A Weave Net router.
    Weaver,
}

impl Kind {
    /// Returns true if it is one of ours.
    pub fn is_ours(self) -> bool {
        self != Kind::Weaver
    }
}

/// Returns the overlay between routers of two kinds.
pub fn overlay(kinds: [Kind; 2]) -> &'static str {
    match kinds {
        [Kind::Weft, Kind::Weft] => "weft",
        _ => "sleeve",
    }
}

/// Returns the MTU of a link between routers of two kinds, over a path that takes packets of so
/// many bytes.
pub fn link_mtu(kinds: [Kind; 2], path: u64, encrypted: bool) -> u64 {
    path - match (overlay(kinds), encrypted) {
        ("weft", _) => 90,
        (_, true) => 86,
        (_, false) => 62,
    }
}

static WEFT: OnceLock<PathBuf> = OnceLock::new();

/// Makes this the program that [`weft`] finds, unless it has been asked before.
pub fn set_weft(path: PathBuf) {
    // What is in use stays.
    let _ = WEFT.set(path);
}

/// Returns the program that is tested: `WEFT` from the environment, or the one that was built with
/// the tests.
pub fn weft() -> PathBuf {
    let find = || {
        if let Some(path) = std::env::var_os("WEFT") {
            return path.into();
        }
        // Test programs stand in target/PROFILE/deps, binaries in target/PROFILE.
        let tests = std::env::current_exe().unwrap();
        let profile = tests.parent().unwrap().parent().unwrap();
        let weft = profile.join("weft-under-test");
        assert!(weft.exists(), "{} was not built", weft.display());
        weft
    };
    WEFT.get_or_init(find).clone()
}

/// Returns the real router: `WEAVER` from the environment.
pub fn weaver() -> Option<PathBuf> {
    std::env::var_os("WEAVER").map(PathBuf::from)
}

/// Returns true if this test can run here, with a real router or without. If not, notes what it
/// needs.
pub fn can_run(with_real: bool) -> bool {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    if !rustix::process::geteuid().is_root() {
        testbed::skips::skip(&test, "root");
        return false;
    }
    if with_real && weaver().is_none() {
        testbed::skips::skip(&test, "WEAVER=/path/to/a/real/Weave/Net/2.8.1/weaver");
        return false;
    }
    true
}

/// Returns from the test unless it runs as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::can_run(false) {
            return;
        }
    };
}

/// Returns from the test unless there is a real router and it runs as root.
#[macro_export]
macro_rules! needs_real {
    () => {
        if !$crate::can_run(true) {
            return;
        }
    };
}

/// Makes tests of one scenario, a function of the kinds of its routers: one with ours alone, and
/// one with a real router as each member in turn.
#[macro_export]
macro_rules! members {
    ($scenario:ident, 2) => {
        $crate::members!($scenario: ours [Weft Weft], sleeve [Sleeve Sleeve],
            real_first [Weaver Weft],
            real_second [Weft Weaver]);
    };
    ($scenario:ident, 3) => {
        $crate::members!($scenario: ours [Weft Weft Weft], real_first [Weaver Weft Weft],
            real_second [Weft Weaver Weft], real_third [Weft Weft Weaver]);
    };
    ($scenario:ident, 4) => {
        $crate::members!($scenario: ours [Weft Weft Weft Weft],
            real_first [Weaver Weft Weft Weft], real_second [Weft Weaver Weft Weft],
            real_third [Weft Weft Weaver Weft], real_fourth [Weft Weft Weft Weaver]);
    };
    ($scenario:ident: $($case:ident [$($kind:ident)+]),+) => {
        mod $scenario {
            $(
                #[test]
                fn $case() {
                    let kinds = [$($crate::Kind::$kind),+];
                    if $crate::can_run(kinds.contains(&$crate::Kind::Weaver)) {
                        super::$scenario(&kinds);
                    }
                }
            )+
        }
    };
}
