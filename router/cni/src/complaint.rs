//! Messages for the runtime's log, beside the answer.

/// Tells the runtime's log something that is no failure.
pub(crate) fn complain(line: &str) {
    // Nobody can be told that telling failed.
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr().lock(),
        format_args!("weft-cni: {line}\n"),
    );
}
