use clap::Parser;

use super::*;

#[derive(Parser)]
struct Launch {
    #[command(flatten)]
    flags: LaunchFlags,
}

fn resolve(args: &[&str]) -> Result<Config, String> {
    let args = std::iter::once("launch").chain(args.iter().copied());
    let flags = Launch::try_parse_from(args)
        .map_err(|error| error.to_string())?
        .flags;
    Config::resolve(&flags, "host").map_err(|errors| errors.to_string())
}

#[track_caller]
fn refuse(args: &[&str], expected: &str) {
    let error = resolve(args).unwrap_err();
    assert!(error.contains(expected), "{args:?}: {error}");
}

#[test]
fn defaults() {
    let config = resolve(&[]).unwrap();
    let ipam = config.ipam.as_ref().unwrap();
    assert_eq!((ipam.range, ipam.range_given), (DEFAULT_RANGE, false));
    assert_eq!(ipam.init, Init::Consensus(None));
    assert_eq!(ipam.lease_retention, Duration::from_secs(30 * 86400));
    assert_eq!(config.mtu, 1376);
    assert_eq!(config.conn_limit, Some(200));
    assert_eq!(config.nickname, "host");
    assert_eq!(config.min_version, 1);
    let with_password = resolve(&["--password=wfvAwt7sj"]).unwrap();
    assert_eq!(with_password.min_version, 2);
    let old_allowed = resolve(&["--password=wfvAwt7sj", "--min-protocol-version=1"]).unwrap();
    assert_eq!(old_allowed.min_version, 1);
    assert_eq!(
        config.http_addr.as_ref().unwrap().to_string(),
        "127.0.0.1:6784"
    );
    assert_eq!(
        config.state_file("weft.db"),
        PathBuf::from("/var/lib/weft/weft.db")
    );
    let dns = config.dns.unwrap();
    assert_eq!(dns.resolv_conf, PathBuf::from("/etc/resolv.conf"));
    assert!(config.ignored.is_empty());
}

#[test]
fn weave_nets_command_lines_work() {
    let config = resolve(&[
        "--password=wfvAwt7sj",
        "--iprange",
        "10.32.0.0/12",
        "--plugin=false",
        "--no-dns",
        "--ipalloc-init",
        "seed=::1,::2",
        "--http-addr=/var/run/weave/weave.sock",
        "--trusted-subnets=10.0.0.0/8,192.168.1.0/24",
        "--conn-limit=0",
        "--no-discovery=true",
        "--proxy",
        "-H",
        "tcp://0.0.0.0:12375",
        "--awsvpc=false",
        "--token",
        "t",
        "--no-fastdp",
        "host1",
        "host2:6799",
    ])
    .unwrap();
    assert_eq!(config.password.as_deref(), Some(&b"wfvAwt7sj"[..]));
    let ipam = config.ipam.unwrap();
    assert!(ipam.range_given);
    let name = |n| PeerName::from_u64(n).unwrap();
    assert_eq!(ipam.init, Init::Seed(vec![name(1), name(2)]));
    assert!(config.dns.is_none());
    assert_eq!(
        config.http_addr,
        Some(Endpoint::Unix("/var/run/weave/weave.sock".into()))
    );
    assert_eq!(config.trusted_subnets.len(), 2);
    assert_eq!(config.conn_limit, None);
    assert!(!config.discovery);
    assert_eq!(config.ignored, ["--token", "--proxy", "-H"]);
    assert_eq!(config.peers, ["host1", "host2:6799"]);
}

#[test]
fn mistakes_are_listed_together() {
    let error = resolve(&[
        "--mtu=99",
        "--ipalloc-range=10.7.0.1/16",
        "--resume",
        "peer",
    ]);
    let error = error.unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
    refuse(&["--ipalloc-range=10.7.0.1/16"], "10.7.0.0/16 is meant?");
    refuse(&["--ipalloc-range=10.7.0.0/31"], "at least 4 addresses");
    refuse(
        &["--ipalloc-range=", "--ipalloc-init=observer"],
        "needs --ipalloc-range",
    );
    refuse(
        &["--ipalloc-default-subnet=10.8.0.0/24"],
        "does not overlap",
    );
    refuse(&["--ipalloc-init=magic"], "consensus[=COUNT]");
    refuse(&["--name=0:0:0:0:0:0"], "means 'no peer'");
    refuse(&["--name=hello"], "six groups");
    refuse(&["--name=ff:ff:ff:ff:ff:ff"], "multicast");
    refuse(&["--dns-domain=a b"], "is no domain");
    refuse(&["--dns-domain="], "is no domain");
    refuse(&["--host=here"], "is no address");
    refuse(&["--http-addr=6784"], "neither an address");
    refuse(&["--min-protocol-version=3"], "must be 1 or 2");
    refuse(&["--weave-bridge=much-too-long"], "1 to 10 characters");
    refuse(
        &["--require-encryption", "--overlays=sleeve"],
        "needs a password",
    );
    refuse(&["--overlays=fastdp"], "only weft and sleeve");
    refuse(&["--password-file=/nonexistent"], "No such file");
    refuse(&["--no-offload=everything"], "none of gso, gro, tap, aes");
    refuse(&["--attach=some"], "none of labels, all, none");
    refuse(&["--lease-retention=soon"], "is no duration");
    refuse(&["a:b:c"], "too many colons in address");
    refuse(&["a:99999"], "invalid port");
    refuse(&["--no-such-flag"], "unexpected argument");
}

#[test]
fn containers_are_routers_and_dhcp_servers_only_if_that_is_allowed() {
    let guard = |arguments: &[&str]| resolve(arguments).unwrap().guard;
    let default = guard(&[]);
    assert!(!default.allow_router_advertisements && !default.allow_dhcp_servers);
    assert!(guard(&["--allow-router-advertisements"]).allow_router_advertisements);
    assert!(guard(&["--allow-dhcp-servers"]).allow_dhcp_servers);
}

#[test]
fn native_links_are_encrypted_without_a_password() {
    let config = resolve(&["--require-encryption"]).unwrap();
    assert!(config.require_encryption && config.password.is_none());
    assert_eq!(config.overlays, Overlay::ALL);
    let one = |list: &str| resolve(&[list]).unwrap().overlays;
    assert_eq!(one("--overlays=sleeve"), [Overlay::Sleeve]);
    assert_eq!(one("--overlays=sleeve,weft"), Overlay::ALL);
}

#[test]
fn the_password_is_the_first_line_of_its_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "geheim\r\nmore\n").unwrap();
    let flag = format!("--password-file={}", file.path().display());
    assert_eq!(
        resolve(&[&flag]).unwrap().password.as_deref(),
        Some(&b"geheim"[..])
    );
    std::fs::write(&file, "\n").unwrap();
    refuse(&[&flag], "has no password on its first line");
    assert!(resolve(&["--password="]).unwrap().password_empty);
}
