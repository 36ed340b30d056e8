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

    /// Serves until the runtime ends.
    pub async fn serve(self, router: Router) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => axum::serve(listener, router).await,
            Listener::Unix(listener) => axum::serve(listener, router).await,
        }
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
