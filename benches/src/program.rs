//! A measurement that is also the router that it measures, optimised as it is itself.
#![allow(clippy::print_stderr, reason = "says why it could not measure")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use testbed::rig::TrialError;

/// By this name the program is the router.
const ROUTER: &str = "weft";

/// Is the router if the program was called by its name, or measures. Without root, says so.
pub fn router_or(name: &str, measure: impl FnOnce() -> Result<(), TrialError>) -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    let is_router = |file: &std::ffi::OsStr| file == ROUTER;
    if Path::new(&program).file_name().is_some_and(is_router) {
        return be_router();
    }
    if !rustix::process::geteuid().is_root() {
        testbed::skips::skip(name, "root");
        return ExitCode::SUCCESS;
    }
    let measured = tempfile::tempdir()
        .map_err(TrialError::from)
        .and_then(|folder| {
            let weft = folder.path().join(ROUTER);
            symlink(std::env::current_exe()?, &weft)?;
            // Unless another program was named to be measured.
            if std::env::var_os("WEFT").is_none() {
                netns_tests::set_weft(weft);
            }
            measure()
        });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn be_router() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime.map(|runtime| runtime.block_on(router::commands::run(std::env::args())));
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => ExitCode::from(error.report()),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Returns a number that follows a flag among the program's arguments, or what it is without.
pub fn number_after(flag: &str, default: u64) -> Result<u64, TrialError> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    if arguments.next().is_none() {
        return Ok(default);
    }
    let text = arguments.next().unwrap_or_default();
    let number = text.parse();
    number.map_err(|_| format!("{flag} wants a number, got {text:?}").into())
}
