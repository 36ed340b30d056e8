//! Listeners on TCP addresses and unix sockets.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};

use crate::endpoint::Endpoint;

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// On TCP.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Opens a listener. A socket file that nobody listens on is replaced.
    pub async fn open(address: &Endpoint) -> io::Result<Listener> {
        match address {
            Endpoint::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Endpoint::Unix(path) => open_unix(path).await.map(Listener::Unix),
        }
    }

    /// Takes the listener out of its runtime.
    pub fn detach(self) -> io::Result<DetachedListener> {
        Ok(match self {
            Listener::Tcp(listener) => DetachedListener::Tcp(listener.into_std()?),
            Listener::Unix(listener) => DetachedListener::Unix(listener.into_std()?),
        })
    }

    /// Serves until `end`, and then until the requests under way are answered.
    pub async fn serve(
        self,
        router: Router,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => {
                let server = axum::serve(listener, router);
                server.with_graceful_shutdown(end).await
            }
            Listener::Unix(listener) => {
                let server = axum::serve(listener, router);
                server.with_graceful_shutdown(end).await
            }
        }
    }
}

/// An open listener that belongs to no runtime.
#[derive(Debug)]
pub enum DetachedListener {
    /// On TCP.
    Tcp(std::net::TcpListener),
    /// On a unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl DetachedListener {
    /// Gives the listener to the runtime of the caller.
    pub fn attach(self) -> io::Result<Listener> {
        Ok(match self {
            DetachedListener::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            DetachedListener::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// Opens a unix socket that only its owner may use.
pub async fn open_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && tokio::net::UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
