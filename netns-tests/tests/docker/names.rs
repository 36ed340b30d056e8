//! How a container comes to ask the router for names.

use netns_tests::machine::IMAGE;
use netns_tests::{Machine, needs_docker, wait};

use crate::support::Site;

/// A container finds others by name on any host if it was started with what `dns-args` prints.
#[test]
fn containers_started_with_dns_args_find_others_by_name() {
    needs_docker!();
    let site = Site::new(2, &[]);
    let [one, two] = site.machines.as_slice() else {
        panic!("two machines");
    };
    for host in 0..2 {
        site.wait_for_network(host, "weft");
    }
    let web = two.run("web-1", "weft", &[]);
    site.mesh.weft(0, &["expose"]).ok();
    let dns_args = site.mesh.weft(0, &["dns-args"]).ok();
    let flags: Vec<&str> = dns_args.split_whitespace().collect();
    assert_eq!(flags.len(), 2, "{dns_args}");
    start(one, "plain", &[]);
    start(one, "told", &flags);
    wait::until_true("the container finds another", wait::LATER, || {
        one.docker(&["logs", "told"]).ok().starts_with(&web)
    });
    let plain = one.docker(&["logs", "plain"]).ok();
    assert_eq!(plain, "", "Docker does not know another host's names");
}

/// Starts a container that looks up a name until it ends.
fn start(machine: &Machine, name: &str, flags: &[&str]) {
    let mut run = vec!["run", "--detach", "--network", "weft", "--name", name];
    run.extend(["--volume", "/usr/bin/getent:/usr/bin/getent:ro"]);
    run.extend(flags);
    let look = "while :; do getent hosts web-1; sleep 0.2; done";
    run.extend([IMAGE, "sh", "-c", look]);
    machine.docker(&run).ok();
}
