//! The `resolv.conf` of a container, which tells its programs whom to ask for names.
//!
//! It is rewritten in place, since Docker mounts the file, and keeps what it had as comments, so
//! that it can be put back by nothing but itself:
//!
//! ```text
//! # written by weft attach; weft detach puts back what was here before
//! nameserver 10.7.0.1
//! search weave.local example.com
//! #weft# nameserver 192.0.2.53
//! #weft# search example.com
//! ```
//!
//! A namespace with a name has its file in `/etc/netns/NAME`, which `ip netns exec` mounts over
//! the host's; any other container has one in its own root. The host's own file is never touched.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::attach;
use super::bridge::Bridge;
use super::undo::Failures;
use kernel::error::NetError;
use kernel::netlink::Netlink;
use kernel::netns::{FoundNamespace, RUN_NETNS};

/// Docker's bridge, unless the user says otherwise.
const DOCKER_BRIDGE: &str = "docker0";
/// The port that a `resolv.conf` means.
const PORT: u16 = 53;
/// Folder in which `ip netns exec` looks for files of a named namespace.
const ETC_NETNS: &str = "/etc/netns";
/// Longest file that is rewritten, in bytes; a longer one is an error.
const FILE_BYTES_MAX: u64 = 64 << 10;

const HEAD: &str = "# written by weft attach; weft detach puts back what was here before";
const KEPT: &str = "#weft# ";

/// Addresses of this host at which containers can ask a server that listens on `on`: those of the
/// bridge, then those of Docker's, or the others that it listens on. Empty if there is none, or
/// not on the usual port.
pub fn addresses(
    on: &[SocketAddr],
    bridge: &str,
    docker_bridge: &str,
) -> Result<Vec<Ipv4Addr>, NetError> {
    let usual = on.iter().filter(|address| address.port() == PORT);
    let on: Vec<IpAddr> = usual.map(SocketAddr::ip).collect();
    let mut found = Vec::new();
    if on.is_empty() {
        return Ok(found);
    }
    let all = on.iter().any(IpAddr::is_unspecified);
    let candidates = bridge_addresses(bridge, docker_bridge)?;
    found.extend(
        candidates
            .into_iter()
            .filter(|ip| all || on.contains(&IpAddr::V4(*ip))),
    );
    for ip in on {
        if let IpAddr::V4(ip) = ip
            && !ip.is_unspecified()
            && !ip.is_loopback()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    Ok(found)
}

/// Returns the addresses of the bridge, then those of Docker's.
pub fn bridge_addresses(bridge: &str, docker_bridge: &str) -> Result<Vec<Ipv4Addr>, NetError> {
    let netlink = Netlink::open()?;
    let mut networks = match Bridge::find(&netlink, bridge)? {
        Some(bridge) => bridge.addresses(&netlink)?,
        None => Vec::new(),
    };
    let docker = if docker_bridge.is_empty() {
        DOCKER_BRIDGE
    } else {
        docker_bridge
    };
    if let Some(link) = netlink.link(docker)? {
        networks.extend(netlink.addresses_of(link.index)?);
    }
    let v4 = |network: &IpNet| match network {
        IpNet::V4(network) => Some(network.addr()),
        IpNet::V6(_) => None,
    };
    Ok(networks.iter().filter_map(v4).collect())
}

/// The file of one container.
#[derive(Debug)]
pub enum ResolvConf {
    /// That of a named namespace; it need not exist.
    OfName(PathBuf),
    /// One in the root of a process.
    InRoot(File),
}

impl ResolvConf {
    /// Returns the files of a container, by its name and by its processes.
    pub fn find(found: &FoundNamespace, proc: &Path) -> Vec<ResolvConf> {
        let names = found.names.iter().filter_map(|path| {
            let name = path.strip_prefix(RUN_NETNS).ok()?;
            Some(ResolvConf::OfName(
                Path::new(ETC_NETNS).join(name).join("resolv.conf"),
            ))
        });
        let inside = found.pids.iter().find_map(|pid| in_root(proc, *pid));
        names.chain(inside.map(ResolvConf::InRoot)).collect()
    }

    /// Has a container ask `server`, and complete names with `domain`.
    pub fn point(&mut self, server: Ipv4Addr, domain: &str) -> Result<(), NetError> {
        let failed = |e: io::Error| NetError::io("write a container's resolv.conf", &e);
        let before = self.read().map_err(failed)?;
        self.write(&pointed(&before, server, domain))
            .map_err(failed)
    }

    /// Puts back what was there before. Tells whether there was anything to do.
    pub fn restore(&mut self) -> Result<bool, NetError> {
        let failed = |e: io::Error| NetError::io("write a container's resolv.conf", &e);
        let Some(text) = restored(&self.read().map_err(failed)?) else {
            return Ok(false);
        };
        match self {
            ResolvConf::OfName(path) if text.is_empty() => {
                fs::remove_file(&*path).map_err(failed)?;
                if let Some(folder) = path.parent() {
                    // It stays if somebody else's files are in it.
                    let _ = fs::remove_dir(folder);
                }
            }
            _ => self.write(&text).map_err(failed)?,
        }
        Ok(true)
    }

    fn read(&mut self) -> io::Result<String> {
        let mut text = String::new();
        let length = match self {
            ResolvConf::OfName(path) => match File::open(path) {
                Ok(file) => file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
                Err(e) => return Err(e),
            },
            ResolvConf::InRoot(file) => {
                file.rewind()?;
                file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?
            }
        };
        if length as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            ResolvConf::OfName(path) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(path, text)
            }
            ResolvConf::InRoot(file) => {
                file.rewind()?;
                file.set_len(0)?;
                file.write_all(text.as_bytes())
            }
        }
    }
}

/// Puts back the files of everything that is attached to a bridge, and of what is gone.
pub fn restore_all(bridge: &str, proc: &Path) -> Result<(), NetError> {
    let mut failures = Failures::default();
    for interface in attach::attached(bridge, proc)? {
        let files = interface
            .namespace
            .iter()
            .flat_map(|found| ResolvConf::find(found, proc));
        for mut file in files {
            failures.collect(file.restore());
        }
    }
    failures.collect(sweep());
    failures.into_result()
}

/// Removes the files of named namespaces that are gone.
pub fn sweep() -> Result<(), NetError> {
    let folders = fs::read_dir(ETC_NETNS).into_iter().flatten().flatten();
    for folder in folders {
        if Path::new(RUN_NETNS).join(folder.file_name()).exists() {
            continue;
        }
        ResolvConf::OfName(folder.path().join("resolv.conf")).restore()?;
    }
    Ok(())
}

/// Returns the file in the root of a process, unless it is the host's or there is none. What a link
/// in there points to is looked for in there.
fn in_root(proc: &Path, pid: u32) -> Option<File> {
    let root = proc.join(pid.to_string()).join("root");
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, folder, Mode::empty()).ok()?;
    let file = rustix::fs::openat2(
        root,
        "etc/resolv.conf",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let file = File::from(file.ok()?);
    let ours = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let own = fs::metadata("/etc/resolv.conf");
    let host = fs::metadata(proc.join("1/root/etc/resolv.conf"));
    let same = |other: &fs::Metadata| other.dev() == ours.dev() && other.ino() == ours.ino();
    let is_host_s = [own, host].iter().flatten().any(same);
    (!is_host_s).then_some(file)
}

fn pointed(before: &str, server: Ipv4Addr, domain: &str) -> String {
    let before = restored(before).unwrap_or_else(|| before.to_owned());
    let domain = domain.trim_end_matches('.');
    let mut search = vec![domain];
    let mut options = String::new();
    for line in before.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // The last one counts.
            Some("search" | "domain") => {
                search.truncate(1);
                search.extend(words.filter(|word| word.trim_end_matches('.') != domain));
            }
            Some("options") => options += &format!("{line}\n"),
            _ => {}
        }
    }
    let kept: String = before
        .lines()
        .map(|line| format!("{KEPT}{line}\n"))
        .collect();
    let search = search.join(" ");
    format!("{HEAD}\nnameserver {server}\nsearch {search}\n{options}{kept}")
}

/// Returns the text before it was rewritten; `None` if it was not.
fn restored(text: &str) -> Option<String> {
    text.starts_with(HEAD).then_some(())?;
    let kept = text.lines().filter_map(|line| line.strip_prefix(KEPT));
    Some(kept.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

    #[test]
    fn a_file_is_rewritten_and_put_back() {
        let before = "# comment\nnameserver 192.0.2.53\nsearch a.example b.example\n\n\
                      options ndots:2\ndomain c.example weave.local\n";
        let after = pointed(before, SERVER, "weave.local.");
        assert!(after.starts_with(&format!(
            "{HEAD}\nnameserver 10.7.0.1\nsearch weave.local c.example\noptions ndots:2\n#weft# "
        )));
        let active = after.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(active.filter(|line| line.contains("nameserver")).count(), 1);
        assert_eq!(restored(&after).as_deref(), Some(before));

        // Once more, for another server.
        let again = pointed(&after, Ipv4Addr::new(10, 7, 0, 2), "other.");
        assert!(again.contains("\nnameserver 10.7.0.2\nsearch other c.example weave.local\n"));
        assert_eq!(restored(&again).as_deref(), Some(before));

        assert_eq!(restored(before), None);
        assert_eq!(restored(&pointed("", SERVER, "x.")).as_deref(), Some(""));
    }

    #[test]
    fn files_of_names_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web/resolv.conf");
        let mut conf = ResolvConf::OfName(path.clone());
        assert!(!conf.restore().unwrap());
        conf.point(SERVER, "weave.local.").unwrap();
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .contains("nameserver 10.7.0.1\n")
        );
        assert!(conf.restore().unwrap());
        assert!(!path.parent().unwrap().exists());

        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        conf.point(SERVER, "weave.local.").unwrap();
        assert!(conf.restore().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.1\n");

        fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(conf.point(SERVER, "weave.local.").is_err());
    }

    #[test]
    fn only_addresses_that_containers_can_reach_are_named() {
        let at = |listen: &str| addresses(&[listen.parse().unwrap()], "nobridge", "nodocker");
        assert_eq!(at("172.17.0.1:53").unwrap(), [Ipv4Addr::new(172, 17, 0, 1)]);
        for nowhere in ["172.17.0.1:54", "127.0.0.1:53", "[2001:db8::1]:53"] {
            assert_eq!(at(nowhere).unwrap(), [] as [Ipv4Addr; 0], "{nowhere}");
        }
    }

    #[test]
    fn the_host_s_own_file_is_never_taken() {
        assert!(in_root(Path::new("/proc"), std::process::id()).is_none());
    }
}
