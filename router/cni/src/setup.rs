//! Installing the plugin for the runtimes of a host, and removing it.
//!
//! Runtimes take up a network the moment its conflist appears, so that comes last and at once,
//! and everything before it is complete when it appears. Each file is written beside its place
//! and renamed into it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::delegate;
use crate::conf::Version;

/// The program; the other names lead to it.
const PROGRAM: &str = "weft-net";
/// Other names of the program: its second function, and Weave Net's names, so that conflists which
/// were written for it work unchanged.
const LINKS: [&str; 3] = ["weft-ipam", "weave-net", "weave-ipam"];
/// Suffix that is added to the name of a foreign file that is in the way.
const ASIDE: &str = ".before-weft";
/// The plugin that forwards ports of the host.
const PORTMAP: &str = "portmap";

/// Files to install, and their places.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Folder in which the runtime looks for plugins.
    pub bin_dir: PathBuf,
    /// Folder in which the runtime looks for networks.
    pub conf_dir: PathBuf,
    /// The network's name.
    pub name: String,
    /// Whether its pods keep their addresses.
    pub sticky: bool,
    /// Address of the router's control interface, if it is not the plugin's default.
    pub http_addr: Option<String>,
    /// The bridge, if it is not the usual one.
    pub bridge: Option<String>,
}

impl Setup {
    /// Returns the conflist's path.
    pub fn conflist(&self) -> PathBuf {
        self.conf_dir.join(format!("10-{}.conflist", self.name))
    }

    /// Installs. Done again, it updates. Returns what was written.
    pub async fn install(&self) -> io::Result<Vec<PathBuf>> {
        fs::create_dir_all(&self.bin_dir)?;
        fs::create_dir_all(&self.conf_dir)?;
        let mut written = vec![self.bin_dir.join(PROGRAM)];
        write_whole(&self.bin_dir, PROGRAM, 0o755, |file| {
            io::copy(&mut File::open("/proc/self/exe")?, file).map(drop)
        })?;
        for name in LINKS {
            self.link(name)?;
            written.push(self.bin_dir.join(name));
        }
        let text = format!("{:#}\n", self.network(self.portmap_versions().await));
        let conflist = format!("10-{}.conflist", self.name);
        write_whole(&self.conf_dir, &conflist, 0o644, |file| {
            io::Write::write_all(file, text.as_bytes())
        })?;
        written.push(self.conflist());
        Ok(written)
    }

    /// Removes what [`Setup::install`] wrote, the conflist first, and puts back what was in its
    /// way. The program stays while another network names it. Returns what was removed.
    pub fn remove(&self) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        let mut remove = |path: PathBuf| match fs::remove_file(&path) {
            Ok(()) => {
                removed.push(path);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        remove(self.conflist())?;
        if self.is_named_elsewhere() {
            return Ok(removed);
        }
        for name in LINKS {
            let path = self.bin_dir.join(name);
            if is_ours(&path) {
                remove(path.clone())?;
            }
            let aside = aside(&path);
            if fs::symlink_metadata(&aside).is_ok() && fs::symlink_metadata(&path).is_err() {
                fs::rename(aside, path)?;
            }
        }
        remove(self.bin_dir.join(PROGRAM))?;
        Ok(removed)
    }

    /// Returns true if a network that is left uses the program by a name of ours.
    fn is_named_elsewhere(&self) -> bool {
        let entries = fs::read_dir(&self.conf_dir).into_iter().flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        let mut networks = paths.filter(|path| {
            let kind = path.extension().and_then(|kind| kind.to_str());
            matches!(kind, Some("conf" | "conflist" | "json"))
        });
        networks.any(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.contains("\"weft-net\"") || text.contains("\"weft-ipam\"")
        })
    }

    /// Makes a name lead to the program. What somebody else put there is kept aside.
    fn link(&self, name: &str) -> io::Result<()> {
        let path = self.bin_dir.join(name);
        if is_ours(&path) {
            return Ok(());
        }
        if fs::symlink_metadata(&path).is_ok() {
            fs::rename(&path, aside(&path))?;
        }
        let temporary = self.bin_dir.join(temporary(name));
        let _ = fs::remove_file(&temporary);
        symlink(PROGRAM, &temporary)?;
        fs::rename(temporary, path)
    }

    /// Returns the conflist. Its versions are those that all its plugins know.
    fn network(&self, portmap: Option<Vec<Version>>) -> Value {
        let mut plugin = json!({ "type": PROGRAM, "hairpinMode": true });
        if self.sticky {
            plugin["sticky"] = true.into();
        }
        if let Some(address) = &self.http_addr {
            plugin["httpAddr"] = address.clone().into();
        }
        if let Some(bridge) = &self.bridge {
            plugin["bridge"] = bridge.clone().into();
        }
        let mut plugins = vec![plugin];
        let mut versions: Vec<Version> = Version::ALL
            .into_iter()
            .filter(|version| *version >= Version::V0_4_0)
            .collect();
        if let Some(known) = portmap {
            plugins.push(json!({
                "type": PORTMAP,
                "capabilities": { "portMappings": true },
                "snat": true,
            }));
            versions.retain(|version| known.contains(version));
        }
        let oldest = versions.first().map_or(Version::V0_3_1, |version| *version);
        let texts: Vec<&str> = versions.iter().map(|version| version.text()).collect();
        // Old runtimes read cniVersion alone; new ones choose from the list.
        json!({
            "cniVersion": oldest.text(),
            "cniVersions": texts,
            "name": self.name,
            "plugins": plugins,
        })
    }

    /// Returns the versions of the plugin that forwards ports; `None` if it is not installed.
    async fn portmap_versions(&self) -> Option<Vec<Version>> {
        let program = self.bin_dir.join(PORTMAP);
        if !program.is_file() {
            return None;
        }
        let conf = json!({ "cniVersion": "0.4.0" }).to_string();
        let asked = delegate::exchange(&program, &conf, &[("CNI_COMMAND", "VERSION")]).await;
        let value = asked.ok().flatten().unwrap_or_default();
        let texts = value["supportedVersions"].as_array().into_iter().flatten();
        Some(texts.filter_map(|v| Version::named(v.as_str()?)).collect())
    }
}

/// Returns true if a path is a name that leads to our program.
fn is_ours(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new(PROGRAM))
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ASIDE);
    PathBuf::from(name)
}

/// Returns a name that no runtime takes for a plugin or a network.
fn temporary(name: &str) -> String {
    format!(".{name}.new")
}

/// Writes a file that appears complete or not at all.
fn write_whole(
    folder: &Path,
    name: &str,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = folder.join(temporary(name));
    let fill = || {
        let mut file = File::create(&temporary)?;
        write(&mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))?;
        File::open(folder)?.sync_all()
    };
    let result = fill();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(folder: &Path) -> Setup {
        Setup {
            bin_dir: folder.join("bin"),
            conf_dir: folder.join("net.d"),
            name: "weft".into(),
            sticky: true,
            http_addr: None,
            bridge: None,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn installs_updates_and_removes() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path());
        fs::create_dir_all(&setup.bin_dir).unwrap();
        // Weave Net's program and names.
        fs::write(setup.bin_dir.join("weave-plugin-2.8.1"), "original").unwrap();
        symlink("weave-plugin-2.8.1", setup.bin_dir.join("weave-net")).unwrap();
        for _ in 0..2 {
            setup.install().await.unwrap();
            assert_eq!(
                names(&setup.bin_dir),
                [
                    "weave-ipam",
                    "weave-net",
                    "weave-net.before-weft",
                    "weave-plugin-2.8.1",
                    "weft-ipam",
                    "weft-net"
                ]
            );
            let text = fs::read_to_string(setup.conflist()).unwrap();
            let conf: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(conf["cniVersion"], "0.4.0");
            assert_eq!(conf["cniVersions"], json!(["0.4.0", "1.0.0", "1.1.0"]));
            assert_eq!(conf["plugins"].as_array().unwrap().len(), 1);
            assert_eq!(conf["plugins"][0]["sticky"], true);
            let program = fs::metadata(setup.bin_dir.join("weave-net")).unwrap();
            assert_eq!(program.len(), fs::metadata("/proc/self/exe").unwrap().len());
            assert_eq!(program.permissions().mode() & 0o777, 0o755);
        }
        assert_eq!(setup.remove().unwrap().len(), 5);
        assert_eq!(setup.remove().unwrap(), Vec::<PathBuf>::new());
        assert_eq!(names(&setup.bin_dir), ["weave-net", "weave-plugin-2.8.1"]);
        assert_eq!(names(&setup.conf_dir), Vec::<String>::new());
        let link = fs::read_link(setup.bin_dir.join("weave-net")).unwrap();
        assert_eq!(link, Path::new("weave-plugin-2.8.1"));
    }

    #[tokio::test]
    async fn the_program_stays_for_other_networks() {
        let folder = tempfile::tempdir().unwrap();
        let first = setup(folder.path());
        let second = Setup {
            name: "other".into(),
            ..first.clone()
        };
        first.install().await.unwrap();
        second.install().await.unwrap();
        assert_eq!(first.remove().unwrap(), [first.conflist()]);
        assert_eq!(names(&first.bin_dir).len(), 4);
        assert_eq!(second.remove().unwrap().len(), 5);
        assert_eq!(names(&first.bin_dir), Vec::<String>::new());
    }

    #[tokio::test]
    async fn ports_are_forwarded_where_the_plugin_for_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path());
        fs::create_dir_all(&setup.bin_dir).unwrap();
        let portmap = setup.bin_dir.join(PORTMAP);
        let text = "#!/bin/sh\ncat >/dev/null\n\
                    echo '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}'\n";
        fs::write(&portmap, text).unwrap();
        fs::set_permissions(&portmap, Permissions::from_mode(0o755)).unwrap();
        setup.install().await.unwrap();
        let text = fs::read_to_string(setup.conflist()).unwrap();
        let conf: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(conf["cniVersions"], json!(["0.4.0", "1.0.0"]));
        assert_eq!(conf["plugins"][1]["type"], PORTMAP);
    }
}
