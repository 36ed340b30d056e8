//! The runtime's request, as it stands in the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{CniError, Code};
use host::container_name::is_made_up;

/// Longest container id, in bytes; a longer one is refused.
const CONTAINER_BYTES_MAX: usize = 100;

/// The command of a call of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Say whether it is as ADD left it.
    Check,
    /// Remove what belongs to containers that are gone.
    Gc,
    /// Say whether an ADD would work.
    Status,
    /// Say which versions are known.
    Version,
}

impl Command {
    /// Reads `CNI_COMMAND`.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Command, CniError> {
        let name = variable("CNI_COMMAND").unwrap_or_default();
        match name.as_str() {
            "ADD" => Ok(Command::Add),
            "DEL" => Ok(Command::Del),
            "CHECK" => Ok(Command::Check),
            "GC" => Ok(Command::Gc),
            "STATUS" => Ok(Command::Status),
            "VERSION" => Ok(Command::Version),
            "" => Err(CniError::new(
                Code::Environment,
                "required env variables [CNI_COMMAND] missing",
                "this program is run by a container runtime; see docs/cni.md",
            )),
            other => Err(CniError::new(
                Code::Environment,
                format!("unknown CNI_COMMAND: {other}"),
                "",
            )),
        }
    }
}

/// A call: what to do, and with which container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Advice for the user.
    pub command: Command,
    /// The container's id; empty where the command is about none.
    pub container: String,
    /// Path of its network namespace; may be absent in DEL.
    pub netns: Option<PathBuf>,
    /// The name of the interface in it.
    pub interface: String,
    /// Further arguments of the runtime: `CNI_ARGS`.
    pub arguments: BTreeMap<String, String>,
    /// Folders of other plugins.
    pub path: Vec<PathBuf>,
}

impl Call {
    /// Reads everything that the command needs, and says all that is missing at once.
    pub fn read(
        command: Command,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Call, CniError> {
        let get = |name: &str| variable(name).unwrap_or_default();
        let needed: &[&str] = match command {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Command::Gc | Command::Status | Command::Version => &[],
        };
        let missing: Vec<&str> = needed
            .iter()
            .copied()
            .filter(|name| get(name).is_empty())
            .collect();
        if !missing.is_empty() {
            return Err(CniError::new(
                Code::Environment,
                format!("required env variables [{}] missing", missing.join(",")),
                "",
            ));
        }
        let netns = get("CNI_NETNS");
        let call = Call {
            command,
            container: get("CNI_CONTAINERID"),
            netns: (!netns.is_empty()).then(|| PathBuf::from(netns)),
            interface: get("CNI_IFNAME"),
            arguments: arguments(&get("CNI_ARGS"))?,
            path: std::env::split_paths(&get("CNI_PATH")).collect(),
        };
        if !needed.is_empty() {
            check_container(&call.container)?;
            check_interface(&call.interface)?;
        }
        Ok(call)
    }

    /// Returns who the container is, if the runtime says so.
    pub fn caller(&self) -> Option<Caller<'_>> {
        let get = |name: &str| self.arguments.get(name).filter(|value| !value.is_empty());
        let name = get("K8S_POD_NAME")?;
        Some(match get("K8S_POD_NAMESPACE") {
            Some(namespace) => Caller::Pod { namespace, name },
            None => Caller::Container { name },
        })
    }
}

/// Identity of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'c> {
    /// A pod of Kubernetes.
    Pod {
        /// The pod's namespace there.
        namespace: &'c str,
        /// The pod's name in it.
        name: &'c str,
    },
    /// A container of podman, which has a name alone: one that the user chose or podman made up.
    Container {
        /// The name.
        name: &'c str,
    },
}

impl Caller<'_> {
    /// Returns the identity by which an address is kept, as the router is asked for it. `None` for
    /// a name that nobody chose. The same pod is never in two places; the same name may be.
    pub fn identity(&self) -> Option<(String, &'static str)> {
        match self {
            Caller::Pod { namespace, name } => Some((format!("{namespace}/{name}"), "explicit")),
            Caller::Container { name } if is_made_up(name) => None,
            Caller::Container { name } => Some(((*name).to_owned(), "derived")),
        }
    }

    /// Returns the name that others find it by.
    pub fn name(&self) -> String {
        match self {
            Caller::Pod { namespace, name } => format!("{name}.{namespace}"),
            Caller::Container { name } => (*name).to_owned(),
        }
    }
}

fn wrong(name: &str, why: impl std::fmt::Display) -> CniError {
    CniError::new(Code::Environment, format!("invalid {name}"), why)
}

/// Returns a letter or digit, then also `_`, `.` and `-`.
fn check_container(id: &str) -> Result<(), CniError> {
    let starts = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !starts || !id.chars().all(goes_on) || id.len() > CONTAINER_BYTES_MAX {
        return Err(wrong(
            "CNI_CONTAINERID",
            format!("{id:?} is no container id"),
        ));
    }
    Ok(())
}

fn check_interface(name: &str) -> Result<(), CniError> {
    kernel::netlink::check_name(name).map_err(|error| wrong("CNI_IFNAME", error))?;
    if matches!(name, "." | "..") {
        return Err(wrong("CNI_IFNAME", format!("{name:?} is no name")));
    }
    Ok(())
}

/// `NAME=VALUE` pairs with semicolons between them.
fn arguments(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(wrong("CNI_ARGS", format!("{pair:?} is no NAME=VALUE"))),
        })
        .collect()
}
