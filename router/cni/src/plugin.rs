//! The CNI plugin: this same binary, run by a container runtime for each container that comes or
//! goes.
//!
//! A runtime finds plugins by their file name, so what the program does depends on the name that
//! it was started by: [`Plugin::of`]. The command comes in the environment ([`Call`]), the
//! network's configuration on standard input ([`NetConf`]), and the answer goes to standard
//! output: a result in the version that the configuration names (`Outcome`), or a
//! [`CniError`].
//!
//! * `net` attaches a container: an address from the router, a veth pair, routes; `wiring` is what
//!   it does to the kernel.
//! * `ipam` gives and takes addresses alone, for other plugins.
//! * `delegate` runs the address plugins of others for `net`.
//! * `address` talks to the router; `spool` remembers what could not be given back to a router
//!   that is away.
//! * `setup` installs all this for a runtime.

use crate::conf::{NetConf, Version};
use crate::error::{CniError, Code};
use crate::invocation::{Call, Command};
use crate::{ipam, net};
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

/// Longest configuration that is read, in bytes; a longer one is refused. It holds what earlier
/// plugins did and, for a collection of garbage, all containers of a host.
const CONF_BYTES_MAX: u64 = 16 << 20;

/// The plugin that the program acts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// Attaches containers.
    Net,
    /// Gives out addresses.
    Ipam,
}

impl Plugin {
    /// Returns the plugin that a program of this name is, if it is one: ours, or Weave Net's.
    pub fn of(program: &str) -> Option<Plugin> {
        match Path::new(program).file_name().and_then(OsStr::to_str)? {
            "weft-net" | "weave-net" => Some(Plugin::Net),
            "weft-ipam" | "weave-ipam" => Some(Plugin::Ipam),
            _ => None,
        }
    }
}

/// Does what the environment asks for. Returns what to print and whether it is a success.
pub async fn run(plugin: Plugin) -> (String, bool) {
    let mut text = String::new();
    let read = std::io::stdin()
        .take(CONF_BYTES_MAX + 1)
        .read_to_string(&mut text);
    let variable = |name: &str| std::env::var(name).ok();
    let mut version = None;
    let result = match read {
        Err(error) => Err(CniError::new(
            Code::Io,
            "cannot read the configuration from standard input",
            error,
        )),
        Ok(_) => answer(plugin, &variable, &text, &mut version).await,
    };
    match result {
        Ok(None) => (String::new(), true),
        Ok(Some(value)) => (indented(&value), true),
        Err(error) => (indented(&error.to_json(version)), false),
    }
}

/// Returns the answer to one call. `version` is set as soon as it is known, since errors name it.
async fn answer(
    plugin: Plugin,
    variable: &(dyn Fn(&str) -> Option<String> + Sync),
    text: &str,
    version: &mut Option<Version>,
) -> Result<Option<Value>, CniError> {
    let command = Command::read(variable)?;
    if command == Command::Version {
        return Ok(Some(versions(text)));
    }
    if text.len() as u64 > CONF_BYTES_MAX {
        return Err(CniError::new(
            Code::Decode,
            "the configuration is too long",
            format!("more than {CONF_BYTES_MAX} bytes"),
        ));
    }
    *version = NetConf::version_of(text)?.into();
    let mut conf = NetConf::read(text)?;
    let call = Call::read(command, variable)?;
    if command == Command::Add {
        conf.hear(&call)?;
    }
    conf.version.check_knows(command)?;
    match plugin {
        Plugin::Net => net::run(&call, &conf, text).await,
        Plugin::Ipam => ipam::run(&call, &conf).await,
    }
}

/// Returns all versions that we know. The runtime's own is repeated if it is one of them.
fn versions(text: &str) -> Value {
    let asked = NetConf::version_of(text).ok();
    let shown = asked.unwrap_or(Version::NEWEST);
    json!({ "cniVersion": shown.text(), "supportedVersions": Version::ALL.map(Version::text) })
}

/// JSON as Weave Net prints it: four blanks a level.
fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing JSON to memory cannot fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
