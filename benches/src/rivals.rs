//! Other overlays in user space, where they are present: two hosts that reach each other through
//! tunnels of theirs. These carry IP and not Ethernet, so the hosts' own addresses are measured,
//! without bridge and container: two devices less on the way than ours.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::host::Lab;
use testbed::rig::{TrialError, wait_until};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::daemon::{Daemon, wait_for_link};

/// Another overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// WireGuard in Go, named by `WIREGUARD_GO`.
    WireguardGo,
    /// WireGuard in Rust, named by `BORINGTUN`.
    Boringtun,
    /// Nebula, named by `NEBULA`, with `nebula-cert` beside it.
    Nebula,
}

/// A rival at work.
pub struct Pair {
    /// The two hosts.
    pub lab: Lab,
    /// Its programs.
    pub daemons: Vec<Daemon>,
    _folder: tempfile::TempDir,
}

const WIREGUARD_PORT: u16 = 51820;
const NEBULA_PORT: u16 = 4242;

impl Rival {
    /// Returns the variable that names its program.
    pub const fn variable(self) -> &'static str {
        match self {
            Rival::WireguardGo => "WIREGUARD_GO",
            Rival::Boringtun => "BORINGTUN",
            Rival::Nebula => "NEBULA",
        }
    }

    /// Returns its program, if it was named.
    pub fn program(self) -> Option<PathBuf> {
        env::var_os(self.variable()).map(PathBuf::from)
    }

    /// Returns the address of a host in its tunnel.
    pub const fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, number + 1)
    }

    /// Two hosts that reach each other through it.
    pub fn pair(self) -> Result<Pair, TrialError> {
        let program = self
            .program()
            .ok_or_else(|| format!("{} is not set", self.variable()))?;
        let mut pair = Pair {
            lab: Lab::with_hosts(2)?,
            daemons: Vec::new(),
            _folder: tempfile::tempdir()?,
        };
        let folder = pair._folder.path().to_owned();
        match self {
            Rival::WireguardGo => pair.wireguard(&program, &["--foreground"])?,
            Rival::Boringtun => {
                pair.wireguard(&program, &["--foreground", "--disable-drop-privileges"])?
            }
            Rival::Nebula => pair.nebula(&program, &folder)?,
        }
        for daemon in &mut pair.daemons {
            daemon.check()?;
        }
        Ok(pair)
    }
}

impl Pair {
    fn wireguard(&mut self, program: &Path, flags: &[&str]) -> Result<(), TrialError> {
        let keys = [[1; 32], [2; 32]].map(StaticSecret::from);
        for number in 0..2_u8 {
            let own = usize::from(number);
            let host = &self.lab.hosts()[own];
            // Sockets for settings lie in one folder for all namespaces.
            let device = format!("wg{}.{number}", std::process::id() % 100_000);
            let mut command = Command::new(program);
            command
                .args(flags)
                .arg(&device)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            self.daemons
                .push(Daemon::start(&host.namespace, &mut command)?);
            let netlink = host.namespace.netlink()?;
            wait_for_link(&netlink, &device)?;
            let settings = format!(
                "set=1\nprivate_key={}\nlisten_port={WIREGUARD_PORT}\npublic_key={}\n\
                 endpoint={}:{WIREGUARD_PORT}\nallowed_ip=10.9.0.0/24\n\n",
                hex(keys[own].as_bytes()),
                hex(PublicKey::from(&keys[1 - own]).as_bytes()),
                self.lab.hosts()[1 - own].address,
            );
            set(Path::new("/var/run/wireguard"), &device, &settings)?;
            let link = netlink.link_named(&device)?;
            netlink.add_address(&link, format!("{}/24", Rival::address(number)).parse()?)?;
            netlink.set_up(&link, true)?;
        }
        Ok(())
    }

    fn nebula(&mut self, program: &Path, folder: &Path) -> Result<(), TrialError> {
        let certify = program.with_file_name("nebula-cert");
        let run = |arguments: &[&str]| -> Result<(), TrialError> {
            let mut command = Command::new(&certify);
            let status = command.args(arguments).current_dir(folder).status()?;
            match status.success() {
                true => Ok(()),
                false => Err(format!("{command:?} failed").into()),
            }
        };
        run(&["ca", "-name", "bench"])?;
        for number in 0..2_u8 {
            let own = usize::from(number);
            let name = format!("host{number}");
            let address = format!("{}/24", Rival::address(number));
            run(&["sign", "-name", &name, "-ip", &address])?;
            let peer = (
                Rival::address(1 - number),
                self.lab.hosts()[1 - own].address,
            );
            let config = folder.join(format!("{name}.yml"));
            fs::write(&config, nebula_config(folder, &name, peer))?;
            let host = &self.lab.hosts()[own];
            let mut command = Command::new(program);
            command
                .arg("-config")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            self.daemons
                .push(Daemon::start(&host.namespace, &mut command)?);
            wait_for_link(&host.namespace.netlink()?, "nebula")?;
        }
        Ok(())
    }
}

fn nebula_config(folder: &Path, name: &str, (inside, outside): (Ipv4Addr, Ipv4Addr)) -> String {
    let folder = folder.display();
    format!(
        "pki: {{ca: {folder}/ca.crt, cert: {folder}/{name}.crt, key: {folder}/{name}.key}}\n\
         static_host_map: {{\"{inside}\": [\"{outside}:{NEBULA_PORT}\"]}}\n\
         lighthouse: {{am_lighthouse: false}}\n\
         listen: {{host: 0.0.0.0, port: {NEBULA_PORT}, read_buffer: 16777216, \
         write_buffer: 16777216}}\n\
         tun: {{dev: nebula, mtu: 1376}}\n\
         logging: {{level: error, format: text}}\n\
         firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  \
         inbound: [{{port: any, proto: any, host: any}}]\n"
    )
}

/// Gives a WireGuard program its settings.
fn set(folder: &Path, device: &str, settings: &str) -> Result<(), TrialError> {
    let path = folder.join(format!("{device}.sock"));
    let mut connection = None;
    wait_until(|| {
        connection = UnixStream::connect(&path).ok();
        connection.is_some()
    });
    let mut connection = connection.ok_or_else(|| format!("no answer at {}", path.display()))?;
    connection.write_all(settings.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n\n") {
        let mut byte = [0];
        if connection.read(&mut byte)? == 0 {
            break;
        }
        answer.extend(byte);
    }
    match answer.starts_with(b"errno=0") {
        true => Ok(()),
        false => Err(format!("settings refused: {}", String::from_utf8_lossy(&answer)).into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
