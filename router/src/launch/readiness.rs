//! Status notifications to systemd (sd_notify(3)).
//!
//! A unit of type `notify` counts as started once it says `READY=1`; units that are ordered behind
//! it wait for that. With a watchdog it is killed and started again unless it says `WATCHDOG=1`
//! in time, which is said only after the control loop has answered: a loop that hangs is what the
//! watchdog is for. Without `NOTIFY_SOCKET` in the environment nothing of this happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use control::client::Client;

/// The connection to systemd, if it supervises this process.
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Interval of the watchdog.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From the environment.
    pub(super) fn from_environment() -> Notifier {
        let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let own = |pid: u64| pid == u64::from(std::process::id());
        let micros = variable("WATCHDOG_USEC").filter(|micros| *micros > 0);
        let micros = micros.filter(|_| variable("WATCHDOG_PID").is_none_or(own));
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            connect(path.as_bytes())
                .inspect_err(|error| tracing::warn!(%error, "systemd cannot be told anything"))
                .ok()
        });
        Notifier {
            watchdog: micros
                .filter(|_| socket.is_some())
                .map(Duration::from_micros),
            socket,
        }
    }

    /// The router runs; answers the watchdog from now on.
    pub(super) fn ready(&self, client: &Client, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
        let Some(interval) = self.watchdog else {
            return;
        };
        let (client, notifier) = (client.clone(), self.clone_socket());
        // Twice as often as is asked for, as systemd advises.
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval / 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if client.ranges().await.is_err() {
                    return;
                }
                notifier.say("WATCHDOG=1");
            }
        });
    }

    /// The router ends.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    fn clone_socket(&self) -> Notifier {
        let socket = self.socket.as_ref().and_then(|s| s.try_clone().ok());
        Notifier {
            socket,
            watchdog: None,
        }
    }

    fn say(&self, state: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send(state.as_bytes()) {
            tracing::warn!(%error, state, "systemd was not told");
        }
    }
}

/// Connects to the socket of a path, or with a leading `@` of an abstract name.
fn connect(path: &[u8]) -> std::io::Result<UnixDatagram> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("weft-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&by_name).unwrap();
        for (server, text) in [
            (at_path, path.display().to_string()),
            (at_name, format!("@{name}")),
        ] {
            let notifier = Notifier {
                socket: Some(connect(text.as_bytes()).unwrap()),
                watchdog: None,
            };
            notifier.clone_socket().stopping();
            let mut buffer = [0; 64];
            let length = server.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"STOPPING=1");
        }
        assert!(connect(b"/nonexistent/notify").is_err());
    }
}
