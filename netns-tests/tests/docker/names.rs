//! How a container comes to ask the router for names.

use netns_tests::{needs_docker, wait};

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
    let start = |client: &str, flags: &[&str]| {
        let getent = "/usr/bin/getent:/usr/bin/getent:ro";
        one.run(client, "weft", &[flags, &["--volume", getent]].concat());
    };
    let asks = |client: &str| {
        let look = ["exec", client, "getent", "hosts", "web-1"];
        one.docker(&look).stdout
    };
    let dns_args = site.mesh.weft(0, &["dns-args"]).ok();
    let flags: Vec<&str> = dns_args.split_whitespace().collect();
    assert_eq!(flags.len(), 2, "{dns_args}");
    start("told", &flags);
    wait::until_true("the container finds another", wait::LATER, || {
        asks("told").split_whitespace().next() == Some(&web)
    });
    start("plain", &[]);
    assert_eq!(
        asks("plain"),
        "",
        "Docker itself does not know the other host's"
    );
}
