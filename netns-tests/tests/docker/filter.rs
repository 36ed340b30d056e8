//! Docker's own packet filter, and our containers beside it.

use std::process::Command;

use netns_tests::{needs_docker, wait};
use rustix::process::Signal;

use crate::support::{Site, must_reach};

fn rules(site: &Site, chain: &str) -> String {
    let mut command = Command::new("iptables-nft");
    command.args(["-S", chain]);
    site.mesh.run(0, &mut command).stdout
}

const JUMP: &str = "-A DOCKER-USER -m comment --comment \"weft: its containers may pass\" \
                    -j WEFT-FORWARD";

/// The engine drops what is forwarded, also what only passes a bridge; ours pass by the chain that
/// it keeps free, also after it has started again.
#[test]
fn containers_pass_the_engines_filter() {
    needs_docker!();
    if Command::new("iptables-nft")
        .arg("--version")
        .output()
        .is_err()
    {
        skips::skip(
            "containers_pass_the_engines_filter",
            "the program iptables-nft",
        );
        return;
    }
    let mut site = Site::new(2, &[]);
    let there = |site: &Site| rules(site, "DOCKER-USER").contains(JUMP);
    let [a, near, far] = [0, 0, 1].map(|host| site.mesh.attach(host));
    for _ in 0..2 {
        site.machines[0].stop_engine(Signal::TERM);
        site.machines[0].begin_engine_with(&site.mesh, &[]);
        site.machines[0].wait_for_engine();
        let mut policy = Command::new("iptables-nft");
        policy.args(["-P", "FORWARD", "DROP"]);
        site.mesh.run(0, &mut policy).ok();
        wait::until_true("the rule is there", wait::SOON, || there(&site));
        assert_eq!(rules(&site, "DOCKER-USER").matches("weft").count(), 1);
        assert_eq!(rules(&site, "FORWARD").matches("weft").count(), 0);
        for to in [&near, &far] {
            must_reach(&a.namespace, &to.address.to_string());
        }
    }
}
