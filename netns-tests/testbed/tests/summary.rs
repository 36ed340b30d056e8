//! The last line of `cargo test --workspace`: what could not run, and what it takes.

use std::io::Write;

fn main() {
    // Tools that collect the names of tests find none here.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let skipped = testbed::skips::take();
    let count: usize = skipped.values().map(Vec::len).sum();
    let mut text = match count {
        0 => "\nsummary: nothing was skipped\n".to_owned(),
        1 => "\nsummary: 1 test could not run\n".to_owned(),
        _ => format!("\nsummary: {count} tests could not run\n"),
    };
    for (needs, tests) in &skipped {
        text.push_str(&format!("\n  {} needed {needs}:\n", tests.len()));
        for test in tests {
            text.push_str(&format!("    {test}\n"));
        }
    }
    text.push('\n');
    // Nobody reads it if that fails.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
