//! Docker's own packet filter, and our containers beside it.

use std::process::Command;

use netns_tests::{needs_docker, wait};
use rustix::process::Signal;

use crate::support::{Site, must_reach};

fn rules(site: &Site, kind: &str, chain: &str) -> String {
    let mut command = Command::new(format!("iptables-{kind}"));
    command.args(["-w", "-S", chain]);
    site.mesh.run(0, &mut command).stdout
}

const JUMP: &str = "-A DOCKER-USER -m comment --comment \"weft: its containers may pass\" \
                    -j WEFT-FORWARD";

/// The engine drops what is forwarded, also what only passes a bridge; ours pass by the chain that
/// it keeps free, also after it has started again.
#[test]
fn containers_pass_the_engines_filter() {
    needs_docker!();
    pass_the_engines_filter("nft");
}

/// As above, on a host whose engine uses the older packet filter.
#[test]
fn containers_pass_the_engines_older_filter() {
    needs_docker!();
    pass_the_engines_filter("legacy");
}

fn pass_the_engines_filter(kind: &str) {
    let program = format!("iptables-{kind}");
    if Command::new(&program).arg("--version").output().is_err() {
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        testbed::skips::skip(&test, &format!("the program {program}"));
        return;
    }
    let mut site = Site::new(2, &[]);
    let there = |site: &Site| rules(site, kind, "DOCKER-USER").contains(JUMP);
    let [a, near, far] = [0, 0, 1].map(|host| site.mesh.attach(host));
    site.machines[0].choose_iptables(kind);
    for _ in 0..2 {
        site.machines[0].stop_engine(Signal::TERM);
        site.machines[0].begin_engine_with(&site.mesh, &[]);
        site.machines[0].wait_for_engine();
        let mut policy = Command::new(&program);
        policy.args(["-w", "-P", "FORWARD", "DROP"]);
        site.mesh.run(0, &mut policy).ok();
        wait::until_true("the rule is there", wait::SOON, || there(&site));
        let docker_user = rules(&site, kind, "DOCKER-USER");
        assert_eq!(docker_user.matches("weft").count(), 1);
        assert_eq!(rules(&site, kind, "FORWARD").matches("weft").count(), 0);
        for to in [&near, &far] {
            must_reach(&a.namespace, &to.address.to_string());
        }
    }
}
