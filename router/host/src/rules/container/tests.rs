use std::process::Command;

use super::*;
use kernel::packet_filter::rules::{Match, Verdict};
use testbed::root::{in_new_namespace, needs_root};

fn rules() -> Vec<Rule> {
    vec![
        Rule {
            matches: vec![Match::CameBy("weave".into())],
            verdict: Verdict::Accept,
            comment: "from weave".into(),
        },
        Rule {
            matches: vec![
                Match::LeavesBy("weave".into()),
                Match::To("10.7.0.0/16".parse().unwrap()),
            ],
            verdict: Verdict::Accept,
            comment: "to 10.7.0.0/16 by weave".into(),
        },
    ]
}

/// Runs iptables, which has to be the kind that uses nf_tables. None, loudly, where it is not
/// installed.
fn iptables(test: &str, line: &str) -> Option<String> {
    let output = Command::new("iptables-nft").args(line.split(' ')).output();
    match output {
        Ok(output) => {
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "iptables {line}: {complaints}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            testbed::skips::skip(test, &format!("the program iptables-nft ({error})"));
            None
        }
    }
}

/// Returns what iptables shows of a chain; that it shows it at all means that it understands it.
#[track_caller]
fn shown(chain: &str) -> Vec<String> {
    let text = iptables("", &format!("-S {chain}")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("-A"));
    lines.map(str::to_owned).collect()
}

const JUMP: &str = "-m comment --comment \"weft: its containers may pass\" -j WEFT-FORWARD";

#[test]
fn where_nothing_is_filtered_nothing_is_added() {
    needs_root!();
    in_new_namespace(|| {
        let test = "container::tests::where_nothing_is_filtered_nothing_is_added";
        apply(Family::V4, &rules()).unwrap();
        assert!(are_in_place(Family::V4, &rules()).unwrap());
        assert_eq!(nft::read_table(TABLE).unwrap(), []);
        if iptables(test, "-P FORWARD ACCEPT").is_none() {
            return;
        }
        apply(Family::V4, &rules()).unwrap();
        assert!(are_in_place(Family::V4, &rules()).unwrap());
        assert_eq!(shown("FORWARD"), Vec::<String>::new());
        assert!(!remove(Family::V4).unwrap());
    });
}

#[test]
fn a_policy_to_drop_is_answered() {
    needs_root!();
    in_new_namespace(|| {
        let test = "container::tests::a_policy_to_drop_is_answered";
        if iptables(test, "-P FORWARD DROP").is_none() {
            return;
        }
        let run = |line: &str| iptables(test, line).unwrap();
        run("-A FORWARD -s 192.0.2.1 -j ACCEPT");
        assert!(!are_in_place(Family::V4, &rules()).unwrap());
        for _ in 0..2 {
            apply(Family::V4, &rules()).unwrap();
            assert!(are_in_place(Family::V4, &rules()).unwrap());
            let expected = [
                format!("-A FORWARD {JUMP}"),
                "-A FORWARD -s 192.0.2.1/32 -j ACCEPT".into(),
            ];
            assert_eq!(shown("FORWARD"), expected);
            assert_eq!(
                shown("WEFT-FORWARD"),
                [
                    "-A WEFT-FORWARD -i weave -m comment --comment \"from weave\" -j ACCEPT",
                    "-A WEFT-FORWARD -d 10.7.0.0/16 -o weave -m comment --comment \
                     \"to 10.7.0.0/16 by weave\" -j ACCEPT"
                ]
            );
        }
        // What the user puts in front of ours stays there.
        run("-I FORWARD -s 192.0.2.2 -j DROP");
        assert!(are_in_place(Family::V4, &rules()).unwrap());
        // Others flush.
        run("-F FORWARD");
        assert!(!are_in_place(Family::V4, &rules()).unwrap());
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("FORWARD").len(), 1);
        run("-F");
        run("-X");
        assert!(!are_in_place(Family::V4, &rules()).unwrap());
        apply(Family::V4, &rules()[..1]).unwrap();
        assert_eq!(shown("WEFT-FORWARD").len(), 1);
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("WEFT-FORWARD").len(), 2);
        // When nothing filters any more, and when we leave.
        run("-P FORWARD ACCEPT");
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("FORWARD"), Vec::<String>::new());
        run("-P FORWARD DROP");
        run("-A FORWARD -s 192.0.2.1 -j ACCEPT");
        let before = run("-S");
        apply(Family::V4, &rules()).unwrap();
        assert!(remove(Family::V4).unwrap());
        assert!(!remove(Family::V4).unwrap());
        assert_eq!(run("-S"), before);
    });
}

/// The chains as Docker makes them.
#[test]
fn docker_keeps_a_chain_free() {
    needs_root!();
    in_new_namespace(|| {
        let test = "container::tests::docker_keeps_a_chain_free";
        if iptables(test, "-P FORWARD DROP").is_none() {
            return;
        }
        let run = |line: &str| iptables(test, line).unwrap();
        // Before Docker starts.
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("FORWARD"), [format!("-A FORWARD {JUMP}")]);
        for line in [
            "-N DOCKER-USER",
            "-A DOCKER-USER -j RETURN",
            "-I FORWARD -j DOCKER-USER",
            "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ] {
            run(line);
        }
        assert!(!are_in_place(Family::V4, &rules()).unwrap());
        apply(Family::V4, &rules()).unwrap();
        assert!(are_in_place(Family::V4, &rules()).unwrap());
        let docker_user = [
            format!("-A DOCKER-USER {JUMP}"),
            "-A DOCKER-USER -j RETURN".into(),
        ];
        assert_eq!(shown("DOCKER-USER"), docker_user);
        assert_eq!(shown("FORWARD").len(), 2);
        // A flush of FORWARD loses the way to Docker's chain.
        run("-F FORWARD");
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("FORWARD"), [format!("-A FORWARD {JUMP}")]);
        assert_eq!(shown("DOCKER-USER").len(), 1);
        run("-I FORWARD -j DOCKER-USER");
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("DOCKER-USER"), docker_user);
        assert_eq!(shown("FORWARD"), ["-A FORWARD -j DOCKER-USER"]);
        assert!(remove(Family::V4).unwrap());
        assert_eq!(shown("DOCKER-USER"), ["-A DOCKER-USER -j RETURN"]);
        assert_eq!(run("-S").matches("weft").count(), 0);
    });
}

/// What the user says in Docker's chain holds, wherever he says it and whenever.
#[test]
fn rules_of_the_user_come_first() {
    needs_root!();
    in_new_namespace(|| {
        let test = "container::tests::rules_of_the_user_come_first";
        if iptables(test, "-P FORWARD DROP").is_none() {
            return;
        }
        let run = |line: &str| iptables(test, line).unwrap();
        run("-N DOCKER-USER");
        run("-A FORWARD -j DOCKER-USER");
        run("-A DOCKER-USER -d 172.17.0.2 -j DROP");
        let jump = format!("-A DOCKER-USER {JUMP}");
        let first = "-A DOCKER-USER -d 172.17.0.2/32 -j DROP".to_owned();
        let second = "-A DOCKER-USER -d 172.17.0.3/32 -j DROP".to_owned();
        apply(Family::V4, &rules()).unwrap();
        assert_eq!(shown("DOCKER-USER"), [first.clone(), jump.clone()]);
        run("-A DOCKER-USER -d 172.17.0.3 -j DROP");
        assert!(!are_in_place(Family::V4, &rules()).unwrap());
        apply(Family::V4, &rules()).unwrap();
        assert!(are_in_place(Family::V4, &rules()).unwrap());
        assert_eq!(
            shown("DOCKER-USER"),
            [first.clone(), second.clone(), jump.clone()]
        );
        // Docker's own, which older ones end the chain with.
        run("-I DOCKER-USER 3 -j RETURN");
        assert!(!are_in_place(Family::V4, &rules()).unwrap());
        apply(Family::V4, &rules()).unwrap();
        let last = "-A DOCKER-USER -j RETURN".to_owned();
        assert_eq!(shown("DOCKER-USER"), [first, second, jump, last]);
        assert!(are_in_place(Family::V4, &rules()).unwrap());
    });
}

/// What only passes the bridge is also asked of ip6tables.
#[test]
fn the_other_family_has_chains_of_its_own() {
    needs_root!();
    in_new_namespace(|| {
        let test = "container::tests::the_other_family_has_chains_of_its_own";
        if iptables(test, "-P FORWARD DROP").is_none() {
            return;
        }
        let ip6tables = |line: &str| {
            let output = Command::new("ip6tables-nft").args(line.split(' ')).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        ip6tables("-P FORWARD DROP");
        let within = &rules()[..1];
        apply(Family::V6, within).unwrap();
        assert!(are_in_place(Family::V6, within).unwrap());
        assert!(!are_in_place(Family::V4, within).unwrap());
        let text = ip6tables("-S");
        assert!(text.contains(&format!("-A FORWARD {JUMP}")), "{text}");
        assert!(text.contains("-A WEFT-FORWARD -i weave"), "{text}");
        assert_eq!(shown("FORWARD"), Vec::<String>::new());
        assert!(remove(Family::V6).unwrap());
        assert!(!ip6tables("-S").contains("WEFT"));
    });
}
