//! The servers that the host itself would ask: a `resolv.conf`, followed when it changes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Interval between checks of the file.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of servers; further ones are ignored.
pub(super) const UPSTREAMS_MAX: usize = 8;
/// Maximum number of bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Time for which a server that failed is asked after the others.
const DISTRUSTED_FOR: Duration = Duration::from_secs(30);

/// A server to forward to.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    /// Time of its last failure in milliseconds since `epoch`, plus one; 0 if it did not fail.
    failed: AtomicU64,
    epoch: Instant,
}

impl Upstream {
    fn new(addr: SocketAddr, epoch: Instant) -> Upstream {
        Upstream {
            addr,
            failed: AtomicU64::new(0),
            epoch,
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX - 1)
    }

    pub(super) fn note_failure(&self, now: Instant) {
        self.failed.store(self.millis(now) + 1, Ordering::Relaxed);
    }

    pub(super) fn note_success(&self) {
        self.failed.store(0, Ordering::Relaxed);
    }

    fn is_distrusted(&self, now: Instant) -> bool {
        let failed = self.failed.load(Ordering::Relaxed);
        let for_millis = DISTRUSTED_FOR.as_millis();
        failed != 0 && u128::from((self.millis(now) + 1).saturating_sub(failed)) < for_millis
    }
}

/// The servers as the file lists them, without ourselves.
#[derive(Debug)]
pub(super) struct Resolv {
    path: Option<PathBuf>,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Addresses that the router listens on.
    us: Vec<SocketAddr>,
    checked: Option<Instant>,
    seen: Option<Stamp>,
    failed: bool,
    upstreams: Vec<Arc<Upstream>>,
}

/// Changes when the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Resolv {
    /// Follows `path`; leaves out `us`, the address that we listen on.
    pub(super) fn new(path: Option<PathBuf>, interval: Duration, us: SocketAddr) -> Resolv {
        Resolv {
            path,
            interval,
            state: Mutex::new(State {
                us: vec![us],
                checked: None,
                seen: None,
                failed: false,
                upstreams: Vec::new(),
            }),
        }
    }

    /// We listen on these addresses from now on.
    pub(super) fn set_ourselves(&self, us: Vec<SocketAddr>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.us != us {
            state.us = us;
            (state.checked, state.seen) = (None, None);
        }
    }

    /// Returns the servers in the order of the file.
    pub(super) fn listed(&self, now: Instant) -> Vec<Arc<Upstream>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state
            .checked
            .is_some_and(|checked| now.saturating_duration_since(checked) < self.interval);
        if !fresh {
            state.checked = Some(now);
            self.check(&mut state, now);
        }
        state.upstreams.clone()
    }

    /// Returns the servers in the order in which to ask them: those that failed lately last.
    pub(super) fn preferred(&self, now: Instant) -> Vec<Arc<Upstream>> {
        let mut upstreams = self.listed(now);
        upstreams.sort_by_key(|upstream| upstream.is_distrusted(now));
        upstreams
    }

    /// Reads the file if it changed. While it cannot be read, the servers stay.
    fn check(&self, state: &mut State, now: Instant) {
        let Some(path) = &self.path else {
            return;
        };
        let read = || -> io::Result<Option<(Stamp, String)>> {
            let stamp = Stamp::of(&fs::metadata(path)?);
            if state.seen == Some(stamp) {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            File::open(path)?
                .take(FILE_BYTES_MAX)
                .read_to_end(&mut bytes)?;
            Ok(Some((stamp, String::from_utf8_lossy(&bytes).into_owned())))
        };
        match read() {
            Ok(None) => state.failed = false,
            Ok(Some((stamp, text))) => {
                (state.seen, state.failed) = (Some(stamp), false);
                let is_other =
                    |addr: &SocketAddr| !state.us.iter().any(|us| is_ourselves(*addr, *us));
                let listed = parse(&text).filter(is_other);
                let addresses: Vec<SocketAddr> = listed.take(UPSTREAMS_MAX).collect();
                info!(path = %path.display(), upstreams = ?addresses, "read resolvers");
                let known = std::mem::take(&mut state.upstreams);
                let keep = |addr| {
                    let same = known.iter().find(|upstream| upstream.addr == addr);
                    same.cloned()
                        .unwrap_or_else(|| Arc::new(Upstream::new(addr, now)))
                };
                state.upstreams = addresses.into_iter().map(keep).collect();
            }
            Err(error) => {
                if !state.failed {
                    warn!(path = %path.display(), %error, "could not read resolvers");
                }
                (state.seen, state.failed) = (None, true);
            }
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Returns the servers in the text of a `resolv.conf`; each once. The port is 53 unless the address
/// is written as `192.0.2.1:5353` or `[2001:db8::1]:5353`.
fn parse(text: &str) -> impl Iterator<Item = SocketAddr> {
    let mut seen = Vec::new();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        })
        .filter_map(parse_server)
        .filter(move |addr| {
            let new = !seen.contains(addr);
            seen.push(*addr);
            new
        })
}

fn parse_server(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, PORT));
    }
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let (ip, scope) = text.split_once('%')?;
    let scope = scope.parse().ok().or_else(|| interface_index(scope))?;
    Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, scope).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let path = format!("/sys/class/net/{name}/ifindex");
    let plain = !name.contains('/') && !name.starts_with('.');
    plain
        .then(|| fs::read_to_string(path).ok())??
        .trim()
        .parse()
        .ok()
}

/// Returns true if a query sent to `addr` would come back to us, who listen on `us`.
fn is_ourselves(addr: SocketAddr, us: SocketAddr) -> bool {
    if addr.port() != us.port() {
        return false;
    }
    let same = addr.ip() == us.ip();
    same || addr.ip().is_unspecified() || (us.ip().is_unspecified() && is_local(addr.ip()))
}

/// Returns true if an address belongs to this host: then packets to it would leave from itself.
fn is_local(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 53))?;
        Ok(socket.local_addr()?.ip())
    };
    ip.is_loopback() || source().is_ok_and(|source| source == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[Arc<Upstream>]) -> Vec<String> {
        list.iter()
            .map(|upstream| upstream.addr.to_string())
            .collect()
    }

    fn parsed(text: &str) -> Vec<String> {
        parse(text).map(|addr| addr.to_string()).collect()
    }

    #[test]
    fn servers_are_read() {
        let text = "# comment\n\
                    domain example.com\n\
                    search example.com lan\n\
                    nameserver 192.0.2.1\n\
                    \tnameserver  192.0.2.2  # trailing\n\
                    ;nameserver 192.0.2.3\n\
                    nameserver\n\
                    nameserver resolver.example.com\n\
                    nameservers 192.0.2.4\n\
                    nameserver 192.0.2.5:5353\n\
                    nameserver 192.0.2.1\n\
                    nameserver 2001:db8::1\n\
                    nameserver [2001:db8::2]:54\n\
                    nameserver fe80::1%7\n\
                    nameserver fe80::1%lo\n\
                    nameserver fe80::1%../lo\n\
                    options timeout:1 rotate\n";
        let lo = interface_index("lo").unwrap_or(0);
        let mut expected = vec![
            "192.0.2.1:53".to_owned(),
            "192.0.2.2:53".into(),
            "192.0.2.5:5353".into(),
            "[2001:db8::1]:53".into(),
            "[2001:db8::2]:54".into(),
            "[fe80::1%7]:53".into(),
        ];
        expected.extend((lo > 0).then(|| format!("[fe80::1%{lo}]:53")));
        assert_eq!(parsed(text), expected);
    }

    #[test]
    fn we_are_not_among_them() {
        let ourselves =
            |addr: &str, us: &str| is_ourselves(addr.parse().unwrap(), us.parse().unwrap());
        assert!(ourselves("127.0.0.1:53", "0.0.0.0:53"));
        assert!(ourselves("127.0.0.53:53", "0.0.0.0:53"));
        assert!(ourselves("0.0.0.0:53", "172.17.0.1:53"));
        assert!(ourselves("172.17.0.1:53", "172.17.0.1:53"));
        assert!(!ourselves("127.0.0.53:53", "172.17.0.1:53"));
        assert!(!ourselves("127.0.0.1:54", "0.0.0.0:53"));
        assert!(!ourselves("203.0.113.77:53", "0.0.0.0:53"));
    }

    #[test]
    fn the_file_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let us = "127.0.0.1:53".parse().unwrap();
        let resolv = Resolv::new(Some(path.clone()), CHECK_INTERVAL, us);
        let start = Instant::now();
        let at = |secs| addresses(&resolv.listed(start + Duration::from_secs(secs)));
        assert_eq!(at(0), [] as [&str; 0]);
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 127.0.0.1\n").unwrap();
        assert_eq!(at(4), [] as [&str; 0], "not looked at yet");
        assert_eq!(at(5), ["192.0.2.1:53"]);

        // Replaced by another file of the same size.
        let next = folder.path().join("next");
        fs::write(&next, "nameserver 192.0.2.2\nnameserver 127.0.0.1\n").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(at(9), ["192.0.2.1:53"]);
        assert_eq!(at(10), ["192.0.2.2:53"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(at(15), ["192.0.2.2:53"], "kept while there is no file");
        let many: String = (0..20)
            .map(|i| format!("nameserver 192.0.2.{i}\n"))
            .collect();
        fs::write(&path, many).unwrap();
        assert_eq!(at(20).len(), UPSTREAMS_MAX);

        // Where we listen, we are not asked; where we do not listen any more, we are.
        fs::write(&path, "nameserver 127.0.0.53\nnameserver 127.0.0.1\n").unwrap();
        assert_eq!(at(25), ["127.0.0.53:53"]);
        resolv.set_ourselves(vec!["0.0.0.0:53".parse().unwrap()]);
        assert_eq!(at(25), [] as [&str; 0]);
        resolv.set_ourselves(vec!["127.0.0.53:53".parse().unwrap()]);
        assert_eq!(at(25), ["127.0.0.1:53"]);
    }

    #[test]
    fn servers_that_fail_are_asked_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        let us = "127.0.0.1:53".parse().unwrap();
        let resolv = Resolv::new(Some(path), CHECK_INTERVAL, us);
        let start = Instant::now();
        let listed = resolv.listed(start);
        listed[0].note_failure(start);
        let order = |now| addresses(&resolv.preferred(now));
        let (first, second) = ("192.0.2.1:53", "192.0.2.2:53");
        assert_eq!(order(start), [second, first]);
        assert_eq!(order(start + DISTRUSTED_FOR / 2), [second, first]);
        assert_eq!(order(start + DISTRUSTED_FOR), [first, second]);
        listed[0].note_failure(start + DISTRUSTED_FOR);
        assert_eq!(order(start + DISTRUSTED_FOR), [second, first]);
        listed[0].note_success();
        assert_eq!(order(start + DISTRUSTED_FOR), [first, second]);
    }
}
