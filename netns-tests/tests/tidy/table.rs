//! The rules as a table: which crates there are, who may use whom, and what has no place where.

/// The names of all rules, by which exceptions name them and CONTRIBUTING.md explains them.
pub(crate) const RULES: [&str; 16] = [
    "crates",
    "circle",
    "face",
    "mod.rs",
    "orphan",
    "machines",
    "forbidden",
    "unsafe",
    "name",
    "unique",
    "phrase",
    "unfinished",
    "link",
    "fuzzing",
    "supply",
    "size",
];

/// Crates of the product, each with the crates of the product that it may use. A crate that does
/// not exist is no error; one that exists and has no line is.
pub(crate) const CRATES: [(&str, &[&str]); 18] = [
    ("proto", &[]),
    ("ipam", &["proto"]),
    ("report", &[]),
    ("web", &[]),
    ("kernel", &["proto"]),
    ("boundary", &["proto"]),
    ("host", &["kernel", "proto"]),
    ("store", &["boundary"]),
    ("transport", &["boundary", "kernel", "proto"]),
    ("dataplane", &["boundary", "kernel", "proto"]),
    ("dns", &["kernel", "report", "proto"]),
    ("control", &["boundary", "report", "ipam", "proto"]),
    ("lab", &["host", "kernel", "proto"]),
    ("cni", &["host", "kernel", "web", "proto"]),
    (
        "docker",
        &[
            "control", "host", "kernel", "web", "boundary", "report", "ipam", "proto",
        ],
    ),
    (
        "api",
        &["control", "boundary", "report", "web", "ipam", "proto"],
    ),
    (
        "probe",
        &[
            "control", "lab", "host", "kernel", "boundary", "report", "proto",
        ],
    ),
    (
        "router",
        &[
            "proto",
            "ipam",
            "report",
            "web",
            "kernel",
            "boundary",
            "host",
            "store",
            "transport",
            "dataplane",
            "dns",
            "control",
            "lab",
            "cni",
            "docker",
            "api",
            "probe",
        ],
    ),
];

/// Crates that no product code depends on, but what is tested or measured with them may.
pub(crate) const TEST_CRATES: [&str; 3] = ["benches", "netns-tests", "testbed"];

/// What a crate of the product may use in its tests beside what it may use anyway.
pub(crate) const TEST_DEPENDENCIES: [&str; 2] = ["lab", "testbed"];

/// Crates that only decide, and what they must not be built with.
pub(crate) const DECIDING: [&str; 2] = ["proto", "ipam"];
pub(crate) const DOING: [&str; 8] = [
    "libc", "mio", "nix", "redb", "rustix", "socket2", "tokio", "tracing",
];

/// What must not be named, and where.
pub(crate) struct Forbidden {
    /// Beginnings of the paths of files that it holds for; none means all of the product.
    pub(crate) within: &'static [&'static str],
    /// Beginnings of the paths of files that it does not hold for.
    pub(crate) except: &'static [&'static str],
    /// A series of segments, wherever it stands in a path; `*` at the end stands for any further
    /// letters. `name!` is a macro, and what has a blank in or after it is a series of tokens.
    pub(crate) what: &'static [&'static str],
    pub(crate) because: &'static str,
}

pub(crate) const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        within: &["proto/src", "ipam/src"],
        except: &[],
        what: &[
            "std::fs",
            "std::io",
            "std::env",
            "std::process",
            "std::thread",
            "std::os",
            "std::net::Tcp*",
            "std::net::Udp*",
            "std::net::ToSocketAddrs",
            "Instant",
            "SystemTime",
            "HashMap",
            "HashSet",
            "Mutex",
            "RwLock",
            "Condvar",
            "tokio",
            "libc",
            "getrandom",
            "fastrand::Rng::new",
        ],
        because: "what decides does no I/O, reads no clock and draws no randomness",
    },
    Forbidden {
        within: &["router/control/src"],
        except: &[],
        what: &[
            "Instant::now",
            "SystemTime::now",
            "tokio::spawn",
            "std::fs",
            "std::net::Tcp*",
            "Mutex",
            "spawn_blocking",
            "FnOnce ( & mut Control",
        ],
        because: "control is told the time, and reaches the system through its ports",
    },
    Forbidden {
        within: &[
            "router/dataplane/src/tx",
            "router/dataplane/src/rx",
            "router/dataplane/src/output",
            "router/dataplane/src/deliver",
        ],
        except: &[],
        what: &["Mutex", "RwLock", "tracing", "format!", "dyn "],
        because: "the hot path locks nothing, logs nothing and allocates nothing",
    },
    Forbidden {
        within: &[],
        except: &["router/kernel/src", "router/dataplane/src"],
        what: &["libc"],
        because: "system calls are wrapped in the kernel room",
    },
    Forbidden {
        within: &[],
        except: &[
            "router/api",
            "router/web",
            "router/docker",
            "router/src/http",
            "router/src/docker",
        ],
        what: &["StatusCode", "axum"],
        because: "below HTTP an error is no status",
    },
    Forbidden {
        within: &["router/docker/src", "router/api/src", "router/control/src"],
        except: &[],
        what: &["netlink"],
        because: "interfaces are made by the host room",
    },
    Forbidden {
        within: &[],
        except: &["netns-tests"],
        what: &["testbed", "testing"],
        because: "what only tests need has no place in the product",
    },
];

/// Beginnings of the paths of files that may hold unsafe code. An allocator that counts is the one
/// use outside of the kernel room.
pub(crate) const UNSAFE_ALLOWED: [&str; 2] =
    ["router/kernel/src", "router/dataplane/tests/allocations.rs"];

/// Words that say nothing, or that have a better one, in names of files, modules and types.
pub(crate) const NAMES_NEVER: [&str; 13] = [
    "wish", "turns", "settle", "bounds", "near", "departed", "costs", "spool", "misc", "util",
    "helpers", "common", "manager",
];

/// Those of them that say nothing next to another word either.
pub(crate) const NAMES_EMPTY: [&str; 4] = ["misc", "util", "helpers", "manager"];

/// Names of types of which a crate has at most one.
pub(crate) const NAMES_UNIQUE: [&str; 9] = [
    "Link", "State", "Event", "Entry", "Output", "Channel", "Path", "Request", "Call",
];

/// What no text says, each in two parts so that this file does not say it either.
pub(crate) const TEXT_NEVER: [[&str; 2]; 5] = [
    ["the origi", "nal"],
    ["takes th", "at"],
    ["tells whe", "ther"],
    ["was not to be h", "ad"],
    ["without asking any regis", "try"],
];

/// Habits. What is larger says why at its head, by a sentence that begins with [`REASON`].
pub(crate) const FILE_LINES: usize = 500;
pub(crate) const FUNCTION_LINES: usize = 70;
pub(crate) const FACE_LINES: usize = 80;
pub(crate) const FIELDS: usize = 12;
/// Lines of blocks below which a type only holds data, and may have more fields.
pub(crate) const FIELDS_IMPL_LINES: usize = 120;
/// Lines of all blocks of one type.
pub(crate) const IMPL_LINES: usize = 600;
/// Begins the sentence that says why something is larger than the habit.
pub(crate) const REASON: &str = "Larger than the habit:";
