//! `weft launch`.

use super::flags::LaunchFlags;
use super::{CliError, Output};
use crate::config::Config;
use crate::{launch, telemetry};

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
    telemetry::init(&flags.log_level, &flags.log_format).map_err(CliError::usage)?;
    launch::run(config).await.map_err(CliError::failed)
}
