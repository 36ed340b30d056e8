//! `weft launch`.

use super::{CliError, Output};
use crate::config::Config;
use crate::flags::LaunchFlags;
use crate::{launch, logging};

/// Runs the router in the foreground.
pub(super) async fn run(flags: &LaunchFlags, out: &Output) -> Result<(), CliError> {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let config = Config::resolve(flags, &hostname).map_err(CliError::usage)?;
    if flags.check {
        return out.line("the flags are good");
    }
    if flags.print_peer_name {
        let name = launch::peer_name(&config).map_err(CliError::failed)?;
        return out.line(&name.to_string());
    }
    let log = logging::init(&flags.log_level, &flags.log_format).map_err(CliError::usage)?;
    let result = launch::run(config, &log).await.map_err(CliError::failed);
    log.flush();
    result
}
