//! What a run is made of: everything random is decided by its seed.

use ipam::range::Cidr;

use crate::weave::Bug;

/// The faults and the shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How many weft routers there are ...
    pub(crate) weft: usize,
    /// ... and how many of Weave Net, after them.
    pub(crate) weave: usize,
    pub(crate) universe: Cidr,
    /// Whether the first ring is made by `seed=`, or else by an election.
    pub(crate) seeded: bool,
    /// How long things happen before the faults stop, in seconds.
    pub(crate) seconds: u64,
    /// Time between wishes of users, in microseconds.
    pub(crate) pace: u64,
    /// How many identities there are.
    pub(crate) identities: usize,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// How often a message is much slower than others, which also changes the order.
    pub(crate) slow: f64,
    pub(crate) partitions: bool,
    /// How likely a process is killed at each of its outputs.
    pub(crate) crash: f64,
    /// The output at which the process that makes it is killed, counted over all.
    pub(crate) crash_at: Option<u64>,
    /// Whether disks fill up for a while.
    pub(crate) full_disks: bool,
    /// Whether wall clocks differ and jump.
    pub(crate) skew: bool,
    /// How many hosts leave forever without a word, each followed by one rmpeer.
    pub(crate) deaths: usize,
    /// How many hosts leave by handing over.
    pub(crate) resets: usize,
    /// How long an unused lease is kept, in seconds.
    pub(crate) retention: u64,
    pub(crate) planted: Planted,
}

/// A mistake that is made on purpose, to see that the checks find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Planted {
    #[default]
    None,
    /// A router of Weave Net has this mistake.
    Weave(Bug),
    /// The driver says that batches are saved before they are.
    ReplyBeforeSave,
    /// The store forgets who has which address when the process is restarted.
    ForgetsAddresses,
    /// Received entries of the ring are taken whatever their version.
    NoVersionCheck,
    /// The operator removes hosts that live, so that two may own the same.
    RemovesLiving,
}

impl Plan {
    /// Returns a run with no faults at all.
    pub(crate) fn calm(seed: u64, weft: usize) -> Plan {
        Plan {
            seed,
            weft,
            weave: 0,
            universe: "10.7.0.0/24".parse().unwrap(),
            seeded: false,
            seconds: 60,
            pace: 200_000,
            identities: 6,
            loss: 0.0,
            duplication: 0.0,
            slow: 0.0,
            partitions: false,
            crash: 0.0,
            crash_at: None,
            full_disks: false,
            skew: false,
            deaths: 0,
            resets: 0,
            retention: 30 * 24 * 3600,
            planted: Planted::None,
        }
    }

    /// Returns a run of 2 to 8 routers with whatever the seed says.
    pub(crate) fn random(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x706c_616e);
        let nodes = rng.usize(2..=8);
        let weave = if rng.u8(0..3) == 0 {
            rng.usize(0..nodes)
        } else {
            0
        };
        let mut some = |one_in: u8, value: f64| {
            if rng.u8(0..one_in) == 0 { value } else { 0.0 }
        };
        let loss = some(2, 0.1);
        let duplication = some(3, 0.05);
        let slow = some(2, 0.03);
        let crash = some(2, 0.01);
        let weft = nodes - weave;
        let len = *rng.choice(&[28, 27, 26, 25, 24, 22]).unwrap();
        let deaths = if weft >= 3 && rng.bool() {
            rng.usize(0..=weft - 2)
        } else {
            0
        };
        let resets = if weft >= 3 + deaths && rng.u8(0..3) == 0 {
            1
        } else {
            0
        };
        Plan {
            weft,
            weave,
            universe: format!("10.7.0.0/{len}").parse().unwrap(),
            seeded: rng.bool(),
            seconds: rng.u64(60..200),
            pace: rng.u64(100_000..600_000),
            identities: rng.usize(0..10),
            loss,
            duplication,
            slow,
            crash,
            partitions: rng.bool(),
            full_disks: rng.u8(0..4) == 0,
            skew: rng.u8(0..3) == 0,
            deaths,
            resets,
            retention: *rng.choice(&[60, 3600, 30 * 24 * 3600]).unwrap(),
            ..Plan::calm(seed, 0)
        }
    }

    /// Returns a run of 50 routers.
    pub(crate) fn large(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x6c61_7267);
        Plan {
            weft: 46,
            weave: 4,
            universe: "10.7.0.0/20".parse().unwrap(),
            seeded: true,
            seconds: 60,
            pace: 100_000,
            identities: 40,
            loss: 0.02,
            slow: 0.01,
            crash: 0.0005,
            partitions: rng.bool(),
            deaths: rng.usize(0..3),
            ..Plan::calm(seed, 0)
        }
    }
}
