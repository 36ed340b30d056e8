use super::*;
use crate::rules::multicast;
use kernel::packet_filter::nft::FoundChain;
use testbed::root::{in_new_namespace, needs_root, nft_ruleset};

fn rules(subnets: &[&str]) -> HostRules {
    HostRules {
        masqueraded: subnets.iter().map(|s| s.parse().unwrap()).collect(),
        ..HostRules::default()
    }
}

fn other_chain(name: &str, base: Option<Base>, verdict: Verdict) -> Chain {
    let rule = Rule {
        matches: vec![
            Match::LeavesBy("eth0".into()),
            Match::To("192.0.2.1/32".parse().unwrap()),
            Match::Chance {
                per_million: 250_000,
            },
        ],
        verdict,
        comment: "ünïcode ".repeat(30),
    };
    Chain {
        name: name.into(),
        base,
        rules: vec![rule],
    }
}

#[test]
fn rules_are_read_back() {
    needs_root!();
    in_new_namespace(|| {
        let now = || HostRules::masqueraded_now().unwrap();
        assert_eq!(now(), BTreeSet::new());
        assert!(HostRules::default().are_in_place().unwrap());
        assert!(!HostRules::remove().unwrap());
        let two = rules(&["10.7.0.0/16", "10.8.0.0/24"]);
        for _ in 0..2 {
            two.apply().unwrap();
            assert_eq!(now(), two.masqueraded);
            assert!(two.are_in_place().unwrap());
        }
        let one = rules(&["10.7.0.0/16"]);
        assert!(!one.are_in_place().unwrap());
        one.apply().unwrap();
        assert!(one.are_in_place().unwrap());
        let chains = nft::read_table(TABLE).unwrap();
        assert_eq!(chains.len(), 1);
        assert_eq!(chains[0].rules.len(), 3);
        HostRules::default().apply().unwrap();
        assert_eq!(nft::read_table(TABLE).unwrap(), []);
        one.apply().unwrap();
        assert!(HostRules::remove().unwrap());
        assert!(!HostRules::remove().unwrap());
    });
}

/// A rule that does something else under the same comment, as one that was edited by hand or is
/// of another version, is not ours.
#[test]
fn an_edited_rule_is_put_right() {
    needs_root!();
    in_new_namespace(|| {
        let wanted = HostRules {
            bridge: "weave".into(),
            private_ports: BTreeSet::from([6784]),
            unmasqueraded: BTreeSet::from(["10.7.8.0/24".parse().unwrap()]),
            forwards: true,
            docker: Some(DockerBridge {
                name: "docker0".into(),
                addresses: vec![Ipv4Addr::new(172, 17, 0, 1)],
                mesh_port: 6783,
            }),
            ..rules(&["10.7.0.0/16"])
        };
        wanted.apply().unwrap();
        assert!(wanted.are_in_place().unwrap());
        let table = wanted.table();
        type Edit = fn(&mut Rule);
        let edits: [Edit; 5] = [
            |rule| drop(rule.matches.pop()),
            |rule| rule.matches.insert(0, Match::CameBy("eth0".into())),
            |rule| rule.verdict = Verdict::Accept,
            |rule| rule.verdict = Verdict::Drop,
            |rule| rule.matches.reverse(),
        ];
        let mut edited = 0;
        for (at, chain) in table.chains.iter().enumerate() {
            for (number, rule) in chain.rules.iter().enumerate() {
                for edit in edits {
                    let mut changed = rule.clone();
                    edit(&mut changed);
                    if changed == *rule {
                        continue;
                    }
                    let mut table = table.clone();
                    table.chains[at].rules[number] = changed;
                    nft::replace_table(&table).unwrap();
                    assert!(!wanted.are_in_place().unwrap(), "{rule:?}");
                    wanted.apply().unwrap();
                    assert!(wanted.are_in_place().unwrap(), "{rule:?}");
                    edited += 1;
                }
            }
        }
        assert!(edited > 30, "{edited}");
    });
}

#[test]
fn a_failed_change_changes_nothing() {
    needs_root!();
    in_new_namespace(|| {
        let one = rules(&["10.7.0.0/16"]);
        one.apply().unwrap();
        // A jump to a chain that does not exist, in a later rule of a later chain.
        let mut table = one.table();
        table
            .chains
            .push(other_chain("more", None, Verdict::Jump("none".into())));
        let error = nft::replace_table(&table).unwrap_err().to_string();
        assert!(
            error.starts_with("add packet filter rule \"ünïcode"),
            "{error}"
        );
        assert!(error.ends_with("no such file or directory"), "{error}");
        assert!(one.are_in_place().unwrap());
    });
}

#[test]
fn chains_are_replaced_one_by_one() {
    needs_root!();
    in_new_namespace(|| {
        let base = Base {
            kind: ChainKind::Filter,
            hook: Hook::Forward,
            priority: -1,
        };
        let first = other_chain("first", None, Verdict::Return);
        let second = other_chain("second", Some(base), Verdict::Jump("first".into()));
        for _ in 0..2 {
            nft::replace_chain("t", &first).unwrap();
            nft::replace_chain("t", &second).unwrap();
        }
        let found = nft::read_table("t").unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].is(&first) && found[1].is(&second));
        assert!(!found[0].is(&second));
        assert_eq!(found[1].base, Some((2, -1)));
        assert!(found[0].rules[0].comment.len() <= 127);

        let busy = nft::delete_chain("t", "first");
        assert!(busy.is_err(), "the other chain jumps to it");
        assert!(nft::delete_chain("t", "second").unwrap());
        assert!(nft::delete_chain("t", "first").unwrap());
        assert!(!nft::delete_chain("t", "first").unwrap());
        assert_eq!(nft::read_table("t").unwrap(), Vec::<FoundChain>::new());
        assert!(nft::delete_table("t").unwrap());
    });
}

#[test]
fn nft_understands_every_expression() {
    needs_root!();
    in_new_namespace(|| {
        let subnets = ["10.8.0.0/24", "10.7.0.5/16", "10.7.0.1/16"].map(|s| s.parse().unwrap());
        multicast::allow_only("ethwe", &subnets).unwrap();
        let base = Base {
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: -300,
        };
        let mut first = other_chain("first", None, Verdict::Accept);
        first.rules[0].comment.clear();
        nft::replace_chain("t", &first).unwrap();
        let mut second = other_chain("second", Some(base), Verdict::Jump("first".into()));
        second.rules[0].matches = vec![
            Match::NotFrom("10.0.0.0/9".parse().unwrap()),
            Match::NotTo("10.7.0.1/32".parse().unwrap()),
        ];
        second.rules[0].comment = "why".into();
        nft::replace_chain("t", &second).unwrap();
        let Some(text) = nft_ruleset("host::tests::nft_understands_every_expression") else {
            return;
        };
        assert_eq!(text, NFT);
    });
}

const NFT: &str = r#"table ip weft-attach {
	chain multicast-ethwe {
		type filter hook input priority filter; policy accept;
		iifname "ethwe" ip saddr 10.7.0.0/16 ip daddr 224.0.0.0/4 counter accept comment "multicast of 10.7.0.0/16 on ethwe"
		iifname "ethwe" ip saddr 10.8.0.0/24 ip daddr 224.0.0.0/4 counter accept comment "multicast of 10.8.0.0/24 on ethwe"
		iifname "ethwe" ip daddr 224.0.0.0/4 counter drop comment "multicast of other subnets on ethwe"
	}
}
table ip t {
	chain first {
		oifname "eth0" ip daddr 192.0.2.1 numgen random mod 1000000 < 250000 counter accept
	}

	chain second {
		type filter hook prerouting priority raw; policy accept;
		ip saddr != 10.0.0.0/9 ip daddr != 10.7.0.1 counter jump first comment "why"
	}
}
"#;
