//! An offload that is used while it works.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// State of an offload; shared by all threads that use it.
#[derive(Debug)]
pub struct Feature {
    name: &'static str,
    /// 0 while in use, [`BY_CONFIG`], or the error with which the kernel refused.
    state: AtomicI32,
}

const BY_CONFIG: i32 = -1;

/// State of an offload: in use, or the reason why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureState {
    /// In use.
    On,
    /// Switched off by configuration.
    SwitchedOff,
    /// The kernel refused with this error.
    Refused(i32),
}

impl fmt::Display for FeatureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeatureState::On => f.write_str("on"),
            FeatureState::SwitchedOff => f.write_str("off (configured)"),
            FeatureState::Refused(code) => {
                write!(f, "off ({})", io::Error::from_raw_os_error(*code))
            }
        }
    }
}

impl Feature {
    /// Returns a feature in use.
    pub const fn on(name: &'static str) -> Feature {
        Feature {
            name,
            state: AtomicI32::new(0),
        }
    }

    /// Returns a feature that is used if it is `wanted` and the kernel does not refuse it.
    pub fn probe(
        name: &'static str,
        wanted: bool,
        try_it: impl FnOnce() -> io::Result<()>,
    ) -> Feature {
        let feature = Feature::on(name);
        if !wanted {
            feature.state.store(BY_CONFIG, Relaxed);
        } else if let Err(error) = try_it() {
            feature.give_up(&error);
        }
        feature
    }

    /// Returns true if it is in use.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.state.load(Relaxed) == 0
    }

    /// Stops using it, once; says so in the log.
    pub fn give_up(&self, error: &io::Error) {
        let code = error.raw_os_error().filter(|&code| code > 0);
        let code = code.unwrap_or(libc::EIO);
        let was_on = self.state.compare_exchange(0, code, Relaxed, Relaxed);
        if was_on.is_ok() {
            tracing::info!(feature = self.name, %error, "gave up an offload");
        }
    }

    /// Whether it is in use, and if not, why.
    pub fn state(&self) -> FeatureState {
        match self.state.load(Relaxed) {
            0 => FeatureState::On,
            BY_CONFIG => FeatureState::SwitchedOff,
            code => FeatureState::Refused(code),
        }
    }
}
