use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::conf;
use crate::result::Outcome;

/// Returns Weave Net's calls and answers.
fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/cni.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn parse(value: &Value) -> Value {
    serde_json::from_str(value.as_str().unwrap()).unwrap()
}

fn ask(
    plugin: Plugin,
    variables: &[(&str, &str)],
    conf: &str,
) -> (Result<Option<Value>, CniError>, Option<Version>) {
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let get = move |name: &str| variables.get(name).cloned();
    let mut version = None;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(answer(plugin, &get, conf, &mut version));
    (result, version)
}

#[track_caller]
fn refused(variables: &[(&str, &str)], conf: &str, code: Code) -> CniError {
    let (result, _) = ask(Plugin::Net, variables, conf);
    let error = result.unwrap_err();
    assert!(error.is(code), "{error:?}");
    error
}

const ADD: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "0123456789ab"),
    ("CNI_NETNS", "/nonexistent/netns"),
    ("CNI_IFNAME", "eth0"),
];

fn conf(rest: &str) -> String {
    format!(r#"{{"cniVersion":"1.0.0","name":"weave","type":"weave-net"{rest}}}"#)
}

/// Returns true if `ours` has everything that `theirs` has.
fn includes(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => theirs
            .iter()
            .all(|(key, value)| ours.get(key).is_some_and(|ours| includes(ours, value))),
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(o, t)| includes(o, t))
        }
        (ours, theirs) => ours == theirs,
    }
}

#[test]
fn weave_nets_results_are_read_and_written() {
    let mut results = 0;
    for vector in vectors() {
        let success = vector["exit"] == 0 && vector["stdin"].is_string();
        if !success || vector["stdout"] == "" || vector["command"] == "VERSION" {
            continue;
        }
        let conf = NetConf::read(vector["stdin"].as_str().unwrap()).unwrap();
        let theirs = parse(&vector["stdout"]);
        let outcome = Outcome::read(&theirs).unwrap();
        let ours = outcome.to_json(conf.version);
        assert!(
            includes(&ours, &theirs),
            "{ours} lacks something of {theirs}"
        );
        assert_eq!(ours["cniVersion"], conf.version.text());
        for version in Version::ALL {
            let other = Outcome::read(&outcome.to_json(version)).unwrap();
            assert_eq!(other, outcome, "{version:?}");
        }
        results += 1;
    }
    assert_eq!(results, 3);
}

#[test]
fn weave_nets_refusals_are_ours() {
    let all = vectors();
    let gateway = all
        .iter()
        .find(|v| v["stdin"].as_str().is_some_and(|s| s.contains("isGateway")));
    let gateway = gateway.unwrap();
    let conf = gateway["stdin"].as_str().unwrap();
    let (result, version) = ask(Plugin::Net, &ADD, conf);
    let ours = result.unwrap_err().to_json(version);
    assert!(includes(&ours, &parse(&gateway["stdout"])), "{ours}");
    assert_eq!(ours["cniVersion"], "0.3.0");

    let host = all
        .iter()
        .find(|v| v["command"] == "ADD into the host namespace")
        .unwrap();
    let mut variables = ADD;
    variables[2].1 = "/proc/self/ns/net";
    let error = refused(&variables, &self::conf(""), Code::Failed);
    assert!(
        includes(&error.to_json(None), &parse(&host["stdout"])),
        "{error:?}"
    );
}

#[test]
fn versions_are_told() {
    let all = vectors();
    let theirs = all.iter().find(|v| v["command"] == "VERSION").unwrap();
    for (stdin, shown) in [
        (r#"{"cniVersion":"0.3.1"}"#, "0.3.1"),
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":"9.9.9"}"#, "1.1.0"),
        ("", "1.1.0"),
    ] {
        let (result, _) = ask(Plugin::Net, &[("CNI_COMMAND", "VERSION")], stdin);
        let ours = result.unwrap().unwrap();
        assert_eq!(ours["cniVersion"], shown);
        let known = ours["supportedVersions"].as_array().unwrap();
        assert_eq!(known.len(), 7);
        for version in parse(&theirs["stdout"])["supportedVersions"]
            .as_array()
            .unwrap()
        {
            assert!(known.contains(version));
        }
    }
}

#[test]
fn results_have_the_shape_of_their_version() {
    let outcome = Outcome::read(&json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "vethwepl1" },
            { "name": "eth0", "mac": "0e:00:00:00:00:01", "mtu": 1376, "sandbox": "/run/netns/x" },
        ],
        "ips": [{ "address": "10.7.0.2/16", "gateway": "10.7.0.1", "interface": 1 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.7.0.1" }],
        "dns": { "nameservers": ["10.7.0.1"] },
    }))
    .unwrap();
    for version in Version::ALL {
        let value = outcome.to_json(version);
        assert_eq!(value["cniVersion"], version.text());
        assert_eq!(value["dns"]["nameservers"][0], "10.7.0.1");
        if version <= Version::V0_2_0 {
            let expected = json!({
                "ip": "10.7.0.2/16",
                "gateway": "10.7.0.1",
                "routes": [{ "dst": "0.0.0.0/0", "gw": "10.7.0.1" }],
            });
            assert_eq!(value["ip4"], expected);
            assert!(value["ips"].is_null() && value["interfaces"].is_null());
            continue;
        }
        assert_eq!(value["interfaces"][1]["sandbox"], "/run/netns/x");
        assert_eq!(
            value["interfaces"][1]["mtu"].is_u64(),
            version >= Version::V1_1_0
        );
        let ip = &value["ips"][0];
        assert_eq!(
            ip["version"].as_str(),
            (version < Version::V1_0_0).then_some("4")
        );
        assert_eq!(ip["interface"], 1);
        assert_eq!(value["routes"][0]["dst"], "0.0.0.0/0");
    }
}

#[test]
fn commands_belong_to_versions() {
    for (command, version, known) in [
        ("CHECK", "0.3.1", false),
        ("CHECK", "0.4.0", true),
        ("GC", "1.0.0", false),
        ("GC", "1.1.0", true),
        ("STATUS", "1.0.0", false),
        ("STATUS", "1.1.0", true),
    ] {
        let mut variables = ADD;
        variables[0].1 = command;
        let conf = format!(
            r#"{{"cniVersion":"{version}","name":"n","httpAddr":"/nonexistent/weft.sock"}}"#
        );
        let (result, _) = ask(Plugin::Net, &variables, &conf);
        let error = result.unwrap_err();
        assert_eq!(
            error.is(Code::Version),
            !known,
            "{command} {version}: {error:?}"
        );
    }
    let error = refused(&ADD, r#"{"cniVersion":"2.0.0","name":"n"}"#, Code::Version);
    assert_eq!(error.to_json(None)["cniVersion"], "1.1.0");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let says = |error: CniError, words: &[&str]| {
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    };
    says(refused(&[], "{}", Code::Environment), &["CNI_COMMAND"]);
    let unknown = [("CNI_COMMAND", "EAT")];
    says(refused(&unknown, &conf(""), Code::Environment), &["EAT"]);
    let alone = [("CNI_COMMAND", "ADD")];
    let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    says(refused(&alone, &conf(""), Code::Environment), &names);
    for (at, value) in [
        (1, "../x"),
        (1, "-x"),
        (3, "a/b"),
        (3, ".."),
        (3, "sixteen-letters-"),
    ] {
        let mut variables = ADD;
        variables[at].1 = value;
        says(
            refused(&variables, &conf(""), Code::Environment),
            &["invalid CNI_"],
        );
    }
    let mut variables = ADD.to_vec();
    variables.push(("CNI_ARGS", "IgnoreUnknown=1;nonsense"));
    says(
        refused(&variables, &conf(""), Code::Environment),
        &["CNI_ARGS", "nonsense"],
    );
    for text in ["", "[]", "{", "nonsense", r#"{"cniVersion":1}"#] {
        refused(&ADD, text, Code::Decode);
    }
    for rest in [
        r#","mtu":"big""#,
        r#","mtu":-1"#,
        r#","hairpinMode":"yes""#,
        r#","ipam":[]"#,
        r#","ipam":{"routes":[{"dst":"nowhere"}]}"#,
        r#","dns":"8.8.8.8""#,
    ] {
        refused(&ADD, &conf(rest), Code::Decode);
    }
    for rest in [
        r#","bridge":"a bridge""#,
        r#","ipam":{"subnet":"10.7.5.1/24"}"#,
        r#","ipam":{"subnet":"fd00::/64"}"#,
        r#","ipam":{"gateway":"here"}"#,
        r#","ipam":{"type":"../evil"}"#,
        r#","httpAddr":"nowhere""#,
        r#","runtimeConfig":{"ips":["10.7.0"]}"#,
        r#","runtimeConfig":{"mac":"red"}"#,
    ] {
        refused(&ADD, &conf(rest), Code::Config);
    }
    for name in ["", "no/thing", "-x"] {
        let conf = format!(r#"{{"cniVersion":"1.0.0","name":"{name}"}}"#);
        refused(&ADD, &conf, Code::Config);
    }
    says(
        refused(&ADD, &conf(""), Code::UnknownContainer),
        &["/nonexistent/netns"],
    );
}

#[test]
fn nothing_is_the_same_as_null() {
    let conf = conf(r#","mtu":null,"ipam":{"type":null,"routes":null},"dns":null,"new":{"a":1}"#);
    let conf = NetConf::read(&conf).unwrap();
    assert_eq!(
        (conf.mtu, conf.hairpin, conf.bridge.as_str()),
        (None, true, "weave")
    );
    assert_eq!(conf.ipam, conf::IpamConf::default());
}

#[test]
fn programs_are_known_by_name() {
    for (program, plugin) in [
        ("/opt/cni/bin/weave-net", Some(Plugin::Net)),
        ("weft-net", Some(Plugin::Net)),
        ("./weave-ipam", Some(Plugin::Ipam)),
        ("/opt/cni/bin/weft-ipam", Some(Plugin::Ipam)),
        ("/usr/bin/weft", None),
        ("", None),
    ] {
        assert_eq!(Plugin::of(program), plugin, "{program}");
    }
}

#[test]
fn pods_have_a_name() {
    let call = |arguments: &str| {
        let mut variables = ADD.to_vec();
        variables.push(("CNI_ARGS", arguments));
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Call::read(Command::Add, &get).unwrap()
    };
    let kubelet = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=5";
    let who = |arguments: &str| {
        let call = call(arguments);
        let caller = call.caller()?;
        let (identity, kind) = caller.identity().unwrap_or_default();
        Some(format!("{identity} {kind} {}", caller.name()))
    };
    assert_eq!(who(kubelet).unwrap(), "shop/web-0 explicit web-0.shop");
    // As podman has it.
    assert_eq!(who("K8S_POD_NAME=web-0").unwrap(), "web-0 derived web-0");
    let empty = "K8S_POD_NAMESPACE=;K8S_POD_NAME=web-0";
    assert_eq!(who(empty).unwrap(), "web-0 derived web-0");
    assert_eq!(
        who("K8S_POD_NAME=upbeat_hopper").unwrap(),
        "  upbeat_hopper"
    );
    assert_eq!(who("K8S_POD_NAMESPACE=shop;K8S_POD_NAME="), None);
    assert_eq!(who("IgnoreUnknown=1"), None);
}

/// podman asks for an address and a MAC by arguments, other runtimes by their configuration.
#[test]
fn arguments_ask_for_addresses() {
    let hear = |arguments: &str, runtime: &str| {
        let mut variables = ADD.to_vec();
        variables.push(("CNI_ARGS", arguments));
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let call = Call::read(Command::Add, &get).unwrap();
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","runtimeConfig":{runtime}}}"#);
        let mut conf = NetConf::read(&text).unwrap();
        conf.hear(&call).map(|()| {
            let wanted = conf.wanted.iter();
            let wanted = wanted.map(|w| format!("{} {:?}", w.address, w.prefix));
            let mac = conf.mac.map(|mac| mac.to_string());
            (
                wanted.collect::<Vec<_>>().join(","),
                mac.unwrap_or_default(),
            )
        })
    };
    let both = "IgnoreUnknown=1;IP=10.7.0.5;MAC=02:00:00:00:00:07";
    let mac = String::from("02:00:00:00:00:07");
    assert_eq!(
        hear(both, "{}").unwrap(),
        ("10.7.0.5 None".into(), mac.clone())
    );
    let prefix = hear("IP=10.7.0.5/24", "{}").unwrap();
    assert_eq!(prefix, ("10.7.0.5 Some(24)".into(), String::new()));
    // The configuration has the first word.
    let runtime = r#"{"ips":["10.7.0.6/16","10.7.0.7"]}"#;
    let expected = ("10.7.0.6 Some(16),10.7.0.7 None".into(), mac);
    assert_eq!(hear(both, runtime).unwrap(), expected);
    for wrong in ["IP=fd00::5", "IP=10.7.0.5/33", "IP=web", "MAC=red"] {
        let error = hear(wrong, "{}").unwrap_err();
        assert!(error.is(Code::Environment), "{wrong}: {error:?}");
    }
}

/// A router that is away: DEL succeeds, and the address is given back later.
#[test]
fn a_release_is_kept_for_later() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().display();
    let conf = format!(
        r#"{{"cniVersion":"1.0.0","name":"n","httpAddr":"{state}/none.sock","stateDir":"{state}"}}"#
    );
    let mut variables = ADD;
    variables[0].1 = "DEL";
    for plugin in [Plugin::Ipam, Plugin::Ipam] {
        let (result, _) = ask(plugin, &variables, &conf);
        assert_eq!(result, Ok(None));
    }
    let kept = folder.path().join("releases/cni:n:0123456789ab:eth0");
    assert!(kept.exists());
    let (result, _) = ask(Plugin::Ipam, &ADD, &conf);
    assert!(result.unwrap_err().is(Code::TryAgain));
    assert!(kept.exists());
}

proptest! {
    /// What is no JSON object is refused as that.
    #[test]
    fn any_text_is_answered(text in ".{0,200}") {
        let is_object = serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object());
        match NetConf::read(&text) {
            Ok(conf) => {
                prop_assert!(is_object);
                is_usable(&conf);
            }
            Err(error) => is_told(&error, if is_object { &REFUSALS } else { &[Code::Decode] }),
        }
    }

    /// A configuration with some of its bytes changed.
    #[test]
    fn changed_configurations_are_answered(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 32_u8..127), 1..4),
    ) {
        let mut text = conf(r#","bridge":"weft0","mtu":1400,"ipam":{"subnet":"10.7.0.0/16"}"#).into_bytes();
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        match NetConf::read(&String::from_utf8(text).unwrap()) {
            Ok(conf) => is_usable(&conf),
            Err(error) => is_told(&error, &REFUSALS),
        }
    }

    #[test]
    fn any_json_is_answered(key in "[a-zA-Z.\\-]{1,12}", value in "(null|true|-?[0-9]{1,12}|\"[a-z/.:0-9]{0,20}\"|\\[\\]|\\{\\})") {
        for nested in ["", "ipam", "runtimeConfig", "prevResult"] {
            let text = if nested.is_empty() {
                format!(r#"{{"cniVersion":"1.1.0","name":"n","{key}":{value}}}"#)
            } else {
                format!(r#"{{"cniVersion":"1.1.0","name":"n","{nested}":{{"{key}":{value}}}}}"#)
            };
            match NetConf::read(&text) {
                Ok(conf) => {
                    is_usable(&conf);
                    match ipam::previous(&conf) {
                        Ok(outcome) => {
                            let again = Outcome::read(&outcome.to_json(conf.version)).unwrap();
                            prop_assert_eq!(again, outcome);
                        }
                        Err(error) => is_told(&error, &REFUSALS),
                    }
                }
                Err(error) => is_told(&error, &REFUSALS),
            }
        }
    }
}

/// Why a configuration can be refused.
const REFUSALS: [Code; 3] = [Code::Version, Code::Decode, Code::Config];

/// What was read is of a network that has a name, and a version that results can be written in.
#[track_caller]
fn is_usable(conf: &NetConf) {
    assert!(!conf.name.is_empty() && !conf.bridge.is_empty(), "{conf:?}");
    assert!(Version::ALL.contains(&conf.version));
}

/// The runtime is told what is wrong, by one of these numbers.
#[track_caller]
fn is_told(error: &CniError, codes: &[Code]) {
    let told = error.to_json(None);
    let code = |code: &Code| told["code"] == *code as u32;
    assert!(codes.iter().any(code), "{told}");
    assert!(
        told["msg"].as_str().is_some_and(|msg| !msg.is_empty()),
        "{told}"
    );
}
