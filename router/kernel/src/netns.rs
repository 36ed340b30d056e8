//! Network namespaces: finding, making, entering.
//!
//! A namespace is a property of a thread. [`Namespace::run`] therefore works on a thread of its
//! own that ends with the work, so that no thread of the process is ever left behind in a foreign
//! namespace. Sockets and devices stay with the namespace in which they were opened, so a socket
//! made inside `run` may be used by any thread afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;

use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::netlink::Netlink;
use super::sysctl;
use crate::error::NetError;
use crate::sys;

/// An open network namespace. It lives at least as long as this value or a clone of it.
#[derive(Clone)]
pub struct Namespace {
    file: Arc<File>,
    id: NamespaceId,
    label: String,
}

/// Identifier of a namespace. Unique among those that exist at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// Returns the number that the kernel shows, as in `net:[4026531840]`.
    pub const fn inode(self) -> u64 {
        self.inode
    }

    fn of(metadata: &fs::Metadata) -> NamespaceId {
        NamespaceId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Namespace {
    /// Returns the namespace of the calling thread.
    pub fn current() -> Result<Namespace, NetError> {
        Namespace::open("/proc/thread-self/ns/net".into(), "this namespace".into())
    }

    /// Returns the namespace of a process.
    pub fn of_pid(pid: u32) -> Result<Namespace, NetError> {
        Namespace::of_pid_under(Path::new("/proc"), pid)
    }

    /// Returns the namespace of a process, where `proc` is the host's `/proc` seen from here.
    pub fn of_pid_under(proc: &Path, pid: u32) -> Result<Namespace, NetError> {
        let path = proc.join(pid.to_string()).join("ns/net");
        Namespace::open(path, format!("process {pid}"))
    }

    /// Returns the namespace behind a path: a bind mount of one, or a link of `/proc`.
    pub fn at(path: &Path) -> Result<Namespace, NetError> {
        Namespace::open(path.to_owned(), path.display().to_string())
    }

    /// Returns the namespace with this name: one of `ip netns`, or of Docker's sandboxes.
    pub fn named(name: &str) -> Result<Namespace, NetError> {
        check_name(name)?;
        for folder in NAME_FOLDERS {
            match Namespace::open(Path::new(folder).join(name), name.to_owned()) {
                Err(NetError::NoNamespace { .. }) => {}
                found => return found,
            }
        }
        Err(NetError::NoNamespace {
            target: name.to_owned(),
        })
    }

    /// Returns what a user means by `target`: all digits are the id of a process, anything with a
    /// slash is a path, the rest is a name.
    pub fn resolve(target: &str) -> Result<Namespace, NetError> {
        Namespace::resolve_under(Path::new("/proc"), target)
    }

    /// As [`Namespace::resolve`], where `proc` is the host's `/proc` seen from here.
    pub fn resolve_under(proc: &Path, target: &str) -> Result<Namespace, NetError> {
        if !target.is_empty() && target.bytes().all(|b| b.is_ascii_digit()) {
            let none = |_| NetError::NoNamespace {
                target: target.to_owned(),
            };
            return Namespace::of_pid_under(proc, target.parse().map_err(none)?);
        }
        if target.contains('/') {
            return Namespace::at(Path::new(target));
        }
        Namespace::named(target)
    }

    /// Makes a namespace without a name. It ends with the last value, process or socket in it;
    /// its loopback device is down.
    pub fn new() -> Result<Namespace, NetError> {
        on_thread(|| {
            sys::netns::unshare().map_err(|e| NetError::io("create a network namespace", &e))?;
            let mut new = Namespace::current()?;
            new.label = format!("namespace {}", new.id.inode);
            Ok(new)
        })?
    }

    /// Makes a namespace with a name, as `ip netns add` does. It stays until it is removed.
    pub fn create(name: &str) -> Result<Namespace, NetError> {
        check_name(name)?;
        let what = || format!("create network namespace {name}");
        let path = Path::new(RUN_NETNS).join(name);
        share_name_folder().map_err(|e| NetError::io(what(), &e))?;
        File::create_new(&path).map_err(|e| NetError::io(what(), &e))?;
        let made = on_thread(|| {
            sys::netns::unshare().map_err(|e| NetError::io(what(), &e))?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)
                .map_err(|e| NetError::io(what(), &e.into()))
        })
        .flatten();
        if made.is_err() {
            let _ = fs::remove_file(&path);
        }
        made?;
        Namespace::named(name)
    }

    /// Removes the name of a namespace made by [`Namespace::create`]. Returns whether it existed.
    pub fn remove(name: &str) -> Result<bool, NetError> {
        check_name(name)?;
        let path = Path::new(RUN_NETNS).join(name);
        if !path.exists() {
            return Ok(false);
        }
        let what = || format!("remove network namespace {name}");
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            // INVAL: no mount; a creation was cut short.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(NetError::io(what(), &errno.into())),
        }
        fs::remove_file(&path).map_err(|e| NetError::io(what(), &e))?;
        Ok(true)
    }

    fn open(path: PathBuf, label: String) -> Result<Namespace, NetError> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) => {
                return Err(NetError::NoNamespace { target: label });
            }
            Err(e) => return Err(NetError::io(format!("open the namespace of {label}"), &e)),
        };
        if !sys::netns::is_network_namespace(file.as_fd()) {
            return Err(NetError::NotANamespace { target: label });
        }
        let metadata = file
            .metadata()
            .map_err(|e| NetError::io(format!("open the namespace of {label}"), &e))?;
        Ok(Namespace {
            id: NamespaceId::of(&metadata),
            file: Arc::new(file),
            label,
        })
    }

    /// The same namespace, with another text for errors.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<String>) -> Namespace {
        self.label = label.into();
        self
    }

    /// Returns what tells this namespace from others.
    pub const fn id(&self) -> NamespaceId {
        self.id
    }

    /// Returns a path by which other processes can open this namespace, while this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    /// Does `work` inside this namespace, on a thread of its own. A panic of `work` goes on in
    /// the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        on_thread(|| {
            sys::netns::enter(self.file.as_fd())
                .map_err(|e| NetError::io(format!("enter the namespace of {self}"), &e))?;
            Ok(work())
        })?
    }

    /// Starts a process inside this namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, NetError> {
        let program = command.get_program().display().to_string();
        self.run(|| command.spawn())?
            .map_err(|e| NetError::io(format!("start {program}"), &e))
    }

    /// Opens a netlink socket to this namespace.
    pub fn netlink(&self) -> Result<Netlink, NetError> {
        self.run(Netlink::open)?
    }

    /// Writes a setting of this namespace; see [`sysctl::set`].
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), NetError> {
        self.run(|| sysctl::set(key, value))?
    }

    /// Switches the loopback device on, which new namespaces need for connections to themselves.
    pub fn loopback_up(&self) -> Result<(), NetError> {
        let netlink = self.netlink()?;
        netlink.set_up(&netlink.link_named("lo")?, true)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({}, {})", self.label, self.id.inode)
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Namespace) -> bool {
        self.id == other.id
    }
}

impl Eq for Namespace {}

/// A namespace that some process is in, or that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundNamespace {
    /// Its identifier.
    pub id: NamespaceId,
    /// The processes that are in it, lowest first.
    pub pids: Vec<u32>,
    /// The paths that name it.
    pub names: Vec<PathBuf>,
}

impl FoundNamespace {
    /// Opens it, where `proc` is the host's `/proc` seen from here.
    pub fn open(&self, proc: &Path) -> Result<Namespace, NetError> {
        match (self.pids.first(), self.names.first()) {
            (Some(pid), _) => Namespace::of_pid_under(proc, *pid),
            (None, Some(path)) => Namespace::at(path),
            (None, None) => Err(NetError::NoNamespace {
                target: self.id.inode.to_string(),
            }),
        }
    }
}

impl FoundNamespace {
    /// Returns what is to be found of an open namespace.
    pub fn of(namespace: &Namespace, proc: &Path) -> FoundNamespace {
        let mut all = find_all(proc).into_iter();
        let found = all.find(|found| found.id == namespace.id);
        found.unwrap_or(FoundNamespace {
            id: namespace.id,
            pids: Vec::new(),
            names: Vec::new(),
        })
    }

    /// Returns the host name of the container: that of a process which has one of its own, else the
    /// name that `ip netns` has for the namespace.
    pub fn host_name(&self, proc: &Path) -> Option<String> {
        let inode = |pid: &str| {
            let of = fs::metadata(proc.join(pid).join("ns/uts"));
            of.ok().map(|of| of.ino())
        };
        let hosts = [inode("self"), inode("1")];
        let mut own = self.pids.iter().filter(|pid| {
            let uts = inode(&pid.to_string());
            uts.is_some() && !hosts.contains(&uts)
        });
        own.find_map(|pid| host_name_of(proc, *pid)).or_else(|| {
            let mut names = self.names.iter();
            let name = names.find_map(|path| path.strip_prefix(RUN_NETNS).ok())?;
            Some(name.to_str()?.to_owned())
        })
    }
}

/// Returns the host name that a process sees.
fn host_name_of(proc: &Path, pid: u32) -> Option<String> {
    let file = File::open(proc.join(pid.to_string()).join("ns/uts")).ok()?;
    let name = on_thread(|| {
        sys::netns::enter_uts(file.as_fd()).ok()?;
        let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
        Some(name).filter(|name| !name.is_empty())
    });
    name.ok().flatten()
}

/// Returns all namespaces that a process under `proc` is in or that have a name. Those that only an
/// open descriptor or a mount elsewhere keeps alive are not found.
pub fn find_all(proc: &Path) -> Vec<FoundNamespace> {
    let mut found: BTreeMap<NamespaceId, FoundNamespace> = BTreeMap::new();
    // A file in a folder of names on which nothing is mounted is on another device.
    let device = fs::metadata("/proc/thread-self/ns/net").map(|own| own.dev());
    let mut entry = |id: NamespaceId, pid: Option<u32>, name: Option<PathBuf>| {
        if device.as_ref().is_ok_and(|device| *device != id.device) {
            return;
        }
        let entry = found.entry(id).or_insert_with(|| FoundNamespace {
            id,
            pids: Vec::new(),
            names: Vec::new(),
        });
        entry.pids.extend(pid);
        entry.names.extend(name);
    };
    for (name, path) in folder_entries(proc) {
        let Ok(pid) = name.parse::<u32>() else {
            continue;
        };
        // Processes end while we look; those that have are left out.
        if let Ok(metadata) = fs::metadata(path.join("ns/net")) {
            entry(NamespaceId::of(&metadata), Some(pid), None);
        }
    }
    for folder in NAME_FOLDERS {
        for (_, path) in folder_entries(Path::new(folder)) {
            if let Ok(metadata) = fs::metadata(&path) {
                entry(NamespaceId::of(&metadata), None, Some(path));
            }
        }
    }
    let mut found: Vec<FoundNamespace> = found.into_values().collect();
    for namespace in &mut found {
        namespace.pids.sort_unstable();
        namespace.names.sort();
    }
    found
}

fn folder_entries(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .collect()
}

/// Does `work` on a new thread and waits for it, so that what the work does to its thread ends
/// with it.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("netns".into());
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|e| NetError::io("start a thread", &e))?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn check_name(name: &str) -> Result<(), NetError> {
    if name.is_empty() || name.contains(['/', '\0']) || matches!(name, "." | "..") {
        return Err(NetError::NoNamespace {
            target: format!("{name:?}"),
        });
    }
    Ok(())
}

/// Makes the folder of names a shared mount, so that names made in one mount namespace appear in
/// the others; what `ip netns add` does.
fn share_name_folder() -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(RUN_NETNS)?;
    let share = || {
        let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        rustix::mount::mount_change(RUN_NETNS, flags)
    };
    if share() == Err(rustix::io::Errno::INVAL) {
        rustix::mount::mount_bind_recursive(RUN_NETNS, RUN_NETNS)?;
        share()?;
    }
    Ok(())
}

/// Folder in which `ip netns` keeps names.
pub const RUN_NETNS: &str = "/run/netns";
const NAME_FOLDERS: [&str; 2] = [RUN_NETNS, "/run/docker/netns"];

#[cfg(test)]
mod tests;
