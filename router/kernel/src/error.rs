//! Errors of operations on the host's network.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// A failed operation on the host's network. Its text is fit for the user: it says what was
/// tried, what the kernel answered and, where it is known, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The kernel refused an operation.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's answer does not have the shape that its interface promises.
    #[error("{what}: the kernel's answer cannot be read")]
    Malformed {
        /// The operation that was tried.
        what: String,
    },
    /// A namespace does not exist.
    #[error("no network namespace {target}: give a process id, a path or a name of /run/netns")]
    NoNamespace {
        /// The name that was looked for.
        target: String,
    },
    /// A path is there but is no network namespace.
    #[error("{target} is no network namespace")]
    NotANamespace {
        /// The path or name.
        target: String,
    },
    /// The namespace of the host itself was given where one of a container is needed.
    #[error("{target} is in the network namespace of the host: it cannot be attached")]
    HostNamespace {
        /// The namespace as the caller names it.
        target: String,
    },
    /// A device does not exist.
    #[error("no device {name}{hint}")]
    NoDevice {
        /// Its name.
        name: String,
        /// Advice for the user, with a leading separator; may be empty.
        hint: &'static str,
    },
    /// The device that has the bridge's name is something else.
    #[error(
        "device {name} is a {kind}, not a bridge: delete it (ip link delete {name}) or choose \
         another name with --weave-bridge"
    )]
    NotABridge {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The name cannot be that of an interface.
    #[error(
        "{name:?} cannot be the name of an interface: 1 to 15 bytes without blanks, '/' and ':'"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The interface that is to be attached or detached belongs to somebody else.
    #[error(
        "interface {name} exists in {target} but does not lead to bridge {bridge}: choose another \
         interface name"
    )]
    ForeignInterface {
        /// The interface's name.
        name: String,
        /// The namespace it is in.
        target: String,
        /// The bridge it should lead to.
        bridge: String,
    },
    /// No host can have this address.
    #[error(
        "{address} cannot be an address of this host: name one of a subnet of containers, like \
         10.7.255.254/16"
    )]
    NoHostAddress {
        /// The address.
        address: String,
    },
    /// An address is already on another interface of the same namespace.
    #[error("address {address} is already on interface {name} of {target}")]
    AddressElsewhere {
        /// The address.
        address: String,
        /// The interface that has it.
        name: String,
        /// The namespace it is in.
        target: String,
    },
    /// Undoing or removing several things failed in part.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<NetError>),
}

impl NetError {
    /// Returns a failed system call: what was tried, and the error that it returned.
    pub fn io(what: impl Into<String>, error: &io::Error) -> NetError {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        KernelError::new(what, errno).into()
    }

    /// Returns the kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetError::Kernel(error) => Some(error.errno),
            _ => None,
        }
    }

    /// Returns true if the kernel refused with this error number.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }
}

/// An operation that the kernel refused, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// The operation that was tried: "create link weave".
    pub what: String,
    /// The error number.
    pub errno: Errno,
    /// The kernel's own explanation, if it gave one.
    pub detail: Option<String>,
}

impl KernelError {
    /// Creates an error without the kernel's explanation.
    pub fn new(what: impl Into<String>, errno: Errno) -> KernelError {
        KernelError {
            what: what.into(),
            errno,
            detail: None,
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, errno_text(self.errno))?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if matches!(self.errno, Errno::PERM | Errno::ACCESS) {
            f.write_str(": run as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN")?;
        }
        Ok(())
    }
}

impl std::error::Error for KernelError {}

/// Returns the system's text for an error number, as the middle of a sentence.
pub(crate) fn errno_text(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_why_and_what_next() {
        let mut error = KernelError::new("create link weave", Errno::PERM);
        assert_eq!(
            error.to_string(),
            "create link weave: operation not permitted: run as root or with CAP_NET_ADMIN and \
             CAP_SYS_ADMIN"
        );
        error.errno = Errno::INVAL;
        error.detail = Some("Unsupported address length".into());
        assert_eq!(
            error.to_string(),
            "create link weave: invalid argument (Unsupported address length)"
        );
        let several = NetError::Several(vec![error.clone().into(), error.into()]);
        assert_eq!(several.to_string().matches("create link weave").count(), 2);
    }
}
