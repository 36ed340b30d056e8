//! What the measurements of the whole have in common.

pub mod baseline;
pub mod crowded;
pub mod daemon;
pub mod iperf;
pub mod program;
pub mod rivals;
pub mod sample;
pub mod siege;
pub mod vxlan;

use std::process::{Command, Stdio};

/// Returns the median of a figure, its lowest and its highest; NaN of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (
        at(values.len() / 2),
        at(0),
        at(values.len().saturating_sub(1)),
    )
}

/// Returns true if a program is on this machine.
pub fn is_present(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}
