//! Every command of the documents, in the order in which those of a scene are run.

/// Where a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The first host of a mesh.
    First,
    /// The second host, which joins it.
    Second,
    /// The first of two hosts.
    Used,
    /// Two hosts whose mesh has given out nothing.
    Identity,
    /// A host with a router, for addresses.
    Addresses,
    /// A host with a router, for names.
    Names,
    /// A host with a router, for what it does to the host.
    Rules,
    /// A host with a router, for container runtimes.
    Cni,
    /// A host without a router.
    Alone,
    /// Not here, for this reason.
    Elsewhere(&'static str),
}

/// What a command shows, beside that it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    Nothing,
    /// This, somewhere.
    Text(&'static str),
    Exactly(&'static str),
    /// An address of this range.
    Address(&'static str),
    /// It goes on, and the router answers.
    Starts,
}

pub(crate) struct Line {
    /// The documents that have it.
    pub(crate) files: &'static [&'static str],
    /// As it is written, without what explains it.
    pub(crate) command: &'static str,
    pub(crate) scene: Scene,
    /// The host, counted from 0, unless the command names it.
    pub(crate) host: usize,
    pub(crate) shows: Shows,
}

const fn line(
    files: &'static [&'static str],
    scene: Scene,
    host: usize,
    command: &'static str,
    shows: Shows,
) -> Line {
    Line {
        files,
        command,
        scene,
        host,
        shows,
    }
}

/// A command that is not run here.
const fn elsewhere(
    files: &'static [&'static str],
    command: &'static str,
    why: &'static str,
) -> Line {
    line(files, Scene::Elsewhere(why), 0, command, Shows::Nothing)
}

const README: &[&str] = &["README.md"];
const INSTALL: &[&str] = &["docs/install.md"];
const README_AND_INSTALL: &[&str] = &["README.md", "docs/install.md"];
const IPAM: &[&str] = &["docs/ipam.md"];
const NAMES: &[&str] = &["docs/names.md"];
const RULES: &[&str] = &["docs/host-rules.md"];
const CNI: &[&str] = &["docs/cni.md"];
const DOCKER: &[&str] = &["docs/docker.md"];
const PERFORMANCE: &[&str] = &["docs/performance.md"];

/// What the tests of Docker do, with an image of this machine's programs in place of one that would
/// have to be fetched.
const BY_DOCKER: &str = "netns-tests/tests/docker does it, with an image that is not fetched";
const MEASURES: &str = "it measures for minutes, on a machine that does nothing else";
const BUILDS: &str = "it builds what this test was built with";

pub(crate) const COMMANDS: &[Line] = &[
    // From nothing to a mesh.
    line(
        README_AND_INSTALL,
        Scene::First,
        0,
        "mkdir -p -m 700 /etc/weft",
        Shows::Nothing,
    ),
    line(
        README_AND_INSTALL,
        Scene::First,
        0,
        "(umask 077; head -c 24 /dev/urandom | base64 > /etc/weft/password)",
        Shows::Nothing,
    ),
    line(
        README,
        Scene::First,
        0,
        "weft launch --password-file /etc/weft/password",
        Shows::Starts,
    ),
    line(
        README,
        Scene::Second,
        1,
        "weft launch --password-file /etc/weft/password HOST1",
        Shows::Starts,
    ),
    line(
        README,
        Scene::Used,
        0,
        "weft expose",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        README,
        Scene::Used,
        0,
        "weft attach 12345",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        README,
        Scene::Used,
        0,
        "weft attach 10.7.3.4/16 12345",
        Shows::Exactly("10.7.3.4"),
    ),
    line(
        README,
        Scene::Used,
        0,
        "weft attach --identity web-1 12345",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        README,
        Scene::Used,
        0,
        "weft status",
        Shows::Text("Connections: 1 (1 established)"),
    ),
    // The address that sticks.
    line(
        README,
        Scene::Identity,
        0,
        "host1: weft attach --identity web-1 web",
        Shows::Exactly("10.7.0.1"),
    ),
    line(
        README,
        Scene::Identity,
        0,
        "host1: weft detach web",
        Shows::Nothing,
    ),
    line(
        README,
        Scene::Identity,
        1,
        "host2: weft attach --identity web-1 web",
        Shows::Exactly("10.7.0.1"),
    ),
    // Addresses.
    line(
        IPAM,
        Scene::Addresses,
        0,
        "weft attach --identity web-1 PID",
        Shows::Exactly("10.7.0.1"),
    ),
    line(
        IPAM,
        Scene::Addresses,
        0,
        "weft attach PID",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        IPAM,
        Scene::Addresses,
        0,
        "weft attach 10.7.3.4/16 PID",
        Shows::Exactly("10.7.3.4"),
    ),
    line(
        IPAM,
        Scene::Addresses,
        0,
        "weft lease ls",
        Shows::Text("web-1"),
    ),
    line(
        IPAM,
        Scene::Addresses,
        0,
        "weft status ipam",
        Shows::Text("host1"),
    ),
    line(
        IPAM,
        Scene::Addresses,
        0,
        "weft status weft",
        Shows::Text("1 in the mesh"),
    ),
    // Names.
    line(
        NAMES,
        Scene::Names,
        0,
        "weft expose",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        NAMES,
        Scene::Names,
        0,
        "weft attach --name db.prod PID",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        NAMES,
        Scene::Names,
        0,
        "weft dns-add 192.168.0.53 -h ldap",
        Shows::Nothing,
    ),
    line(
        NAMES,
        Scene::Names,
        0,
        "weft dns-lookup db.prod.weave.local",
        Shows::Text("10.7.0."),
    ),
    line(
        NAMES,
        Scene::Names,
        0,
        "weft dns-remove 192.168.0.53 -h ldap",
        Shows::Nothing,
    ),
    line(
        NAMES,
        Scene::Names,
        0,
        "weft status dns",
        Shows::Text("db.prod"),
    ),
    elsewhere(
        NAMES,
        "docker run $(weft dns-args) -h web.weave.local nginx",
        BY_DOCKER,
    ),
    // What is made on the host.
    line(
        RULES,
        Scene::Rules,
        0,
        "weft expose",
        Shows::Address("10.7.0.0/16"),
    ),
    line(
        RULES,
        Scene::Rules,
        0,
        "weft expose 10.7.255.254/16",
        Shows::Text("10.7.255.254"),
    ),
    line(
        RULES,
        Scene::Rules,
        0,
        "weft expose --without-masquerade 10.8.0.1/24",
        Shows::Text("10.8.0.1"),
    ),
    line(
        RULES,
        Scene::Rules,
        0,
        "weft hide [ADDR...]",
        Shows::Text("10.7.255.254"),
    ),
    // Container runtimes.
    line(
        CNI,
        Scene::Cni,
        0,
        "weft setup-cni [--sticky] [--name weft] [--bin-dir /opt/cni/bin] [--conf-dir /etc/cni/net.d]",
        Shows::Text("10-weft.conflist"),
    ),
    line(
        CNI,
        Scene::Cni,
        0,
        "weft setup-cni --sticky --bin-dir /usr/lib/cni",
        Shows::Text("/usr/lib/cni"),
    ),
    line(
        CNI,
        Scene::Cni,
        0,
        "weft setup-cni --remove",
        Shows::Text(""),
    ),
    elsewhere(
        CNI,
        "podman run -d --name web-1 --network weft IMAGE",
        "the scenarios podman do it, with an image that is not fetched",
    ),
    elsewhere(CNI, "cargo build --release -p router", BUILDS),
    elsewhere(
        CNI,
        "WEFT=$PWD/target/release/weft cargo test -p netns-tests --test scenarios -- cni::figures --nocapture",
        MEASURES,
    ),
    // A host without systemd, and with it.
    line(
        INSTALL,
        Scene::Alone,
        0,
        "weft launch --password-file /etc/weft/password 192.168.0.11",
        Shows::Starts,
    ),
    elsewhere(
        INSTALL,
        "scp /etc/weft/password HOST2:/etc/weft/password",
        "hosts made of namespaces have no ssh; the scene of two hosts copies the file",
    ),
    elsewhere(INSTALL, "cargo build --release", BUILDS),
    elsewhere(
        INSTALL,
        "sudo packaging/install.sh -- --password-file /etc/weft/password 192.168.0.11",
        "the scenarios service install below another root, as there is no systemd to start",
    ),
    elsewhere(
        INSTALL,
        "sudo packaging/install.sh --cni",
        "the scenarios service install below another root, as there is no systemd to start",
    ),
    elsewhere(
        INSTALL,
        "sudo packaging/install.sh --uninstall [--purge]",
        "the scenarios service install below another root, as there is no systemd to start",
    ),
    // What takes Docker, an image or much time.
    elsewhere(
        README,
        "cargo run --release -p router --bin weft -- demo",
        "the scenarios demo run it",
    ),
    elsewhere(README, "cargo test --workspace", "this is part of it"),
    elsewhere(
        README,
        "docker run -d --name web-1 --network weft nginx",
        BY_DOCKER,
    ),
    elsewhere(README, "docker rm -f web-1", BY_DOCKER),
    elsewhere(DOCKER, "host1: weft launch", BY_DOCKER),
    elsewhere(DOCKER, "host1: weft expose", BY_DOCKER),
    elsewhere(
        DOCKER,
        "host1: docker run -d --name web-1 --network weft nginx",
        BY_DOCKER,
    ),
    elsewhere(DOCKER, "host2: weft launch host1", BY_DOCKER),
    elsewhere(DOCKER, "host2: weft expose", BY_DOCKER),
    elsewhere(
        DOCKER,
        "host2: docker run -it --network weft $(weft dns-args) alpine ping web-1",
        BY_DOCKER,
    ),
    elsewhere(DOCKER, "weft launch --attach=labels", BY_DOCKER),
    elsewhere(
        DOCKER,
        "docker run -d --name web-1 --label weft.attach=true nginx",
        BY_DOCKER,
    ),
    elsewhere(
        DOCKER,
        "docker run -d --name weft --restart=always --network=host --pid=host --device=/dev/net/tun \
         --cap-add=NET_ADMIN --cap-add=NET_RAW --cap-add=SYS_ADMIN --cap-add=SYS_PTRACE \
         --security-opt=apparmor=unconfined \
         -v /var/run/docker.sock:/var/run/docker.sock -v /run/docker/plugins:/run/docker/plugins \
         -v /var/lib/weft:/var/lib/weft weft:0.1.0 launch --attach=labels",
        BY_DOCKER,
    ),
    elsewhere(
        PERFORMANCE,
        "WEAVER=/path/to/weaver WIREGUARD_GO=/path/to/wireguard-go BORINGTUN=/path/to/boringtun-cli \
         NEBULA=/path/to/nebula cargo bench -p benches --bench mesh -- --rounds 5 --seconds 1",
        MEASURES,
    ),
    elsewhere(
        PERFORMANCE,
        "cargo bench -p benches --bench docker -- --rounds 1",
        MEASURES,
    ),
    elsewhere(
        PERFORMANCE,
        "WEFT_DOCKERD=FOLDER/dockerd cargo bench -p benches --bench docker -- --rounds 1",
        MEASURES,
    ),
    elsewhere(
        PERFORMANCE,
        "cargo bench -p benches --bench crowd -- --rounds 5",
        MEASURES,
    ),
    elsewhere(
        PERFORMANCE,
        "cargo bench -p benches --bench scale -- --rest 120 5 10 20 40",
        MEASURES,
    ),
];
