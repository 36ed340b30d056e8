//! What every user does: run, reach each other, move.

use netns_tests::{needs_docker, wait};
use rustix::process::Signal;

use crate::support::{Site, addresses_inside, must_reach};

/// A container is on the mesh, and takes its address along to another host.
#[test]
fn containers_reach_each_other_and_keep_their_addresses() {
    needs_docker!();
    let site = Site::new(2, &[]);
    let [one, two] = site.machines.as_slice() else {
        panic!("two machines");
    };
    for host in 0..2 {
        site.wait_for_network(host, "weft");
    }
    let web = one.run("web-1", "weft", &[]);
    let other = two.run("other", "weft", &[]);
    assert_ne!(web, other);
    assert_eq!(
        addresses_inside(&one.namespace("web-1")),
        std::slice::from_ref(&web)
    );
    must_reach(&one.namespace("web-1"), &other);
    must_reach(&two.namespace("other"), &web);
    let mac = one.inspect("web-1")["NetworkSettings"]["Networks"]["weft"]["MacAddress"].clone();

    // On another host, the same name has the same address and MAC.
    one.remove("web-1");
    assert_eq!(two.run("web-1", "weft", &[]), web);
    let moved = two.inspect("web-1")["NetworkSettings"]["Networks"]["weft"]["MacAddress"].clone();
    assert_eq!(mac, moved);
    must_reach(&two.namespace("other"), &web);
    let back = one.run("client", "weft", &[]);
    must_reach(&one.namespace("client"), &web);
    must_reach(&two.namespace("web-1"), &back);

    // A name that is up elsewhere is no obstacle.
    let same = one.run("other", "weft", &[]);
    assert_ne!(same, other);
    // An identity that the user gave is one in the whole mesh.
    let option = "driver-opt=weft.identity=db";
    let db = one.run("first", &format!("name=weft,{option}"), &[]);
    let network = format!("name=weft,{option}");
    let refused = two.docker(&["run", "--network", &network, "weft-test:1", "sleep", "1"]);
    assert!(refused.stderr.contains("is up with address"), "{refused:?}");
    one.remove("first");
    assert_eq!(two.run("second", &network, &[]), db);
    // The same by a label.
    two.remove("second");
    assert_eq!(
        one.run("third", "weft", &["--label", "weft.identity=db"]),
        db
    );
}

/// Whatever is restarted, containers keep their addresses, and nothing is given out twice.
#[test]
fn restarts_of_router_and_engine() {
    needs_docker!();
    let mut site = Site::new(2, &[]);
    for host in 0..2 {
        site.wait_for_network(host, "weft");
    }
    let a = site.machines[0].run("first", "weft", &["--restart=always"]);
    let b = site.machines[1].run("second", "weft", &[]);

    // Without router, traffic on the host goes on; with it, that between hosts.
    for signal in [Signal::TERM, Signal::KILL] {
        let near = format!("near-{}", signal.as_raw());
        let local = site.machines[0].run(&near, "weft", &[]);
        site.machines[0].stop_router(signal);
        must_reach(&site.machines[0].namespace("first"), &local);
        site.start_router(0, &[]);
        must_reach(&site.machines[0].namespace("first"), &b);
        let fresh = site.machines[0].run(&format!("{near}-fresh"), "weft", &[]);
        assert!(![&a, &b, &local].contains(&&fresh));
    }

    // Containers that Docker starts again by itself are on the network again.
    site.machines[0].stop_engine(Signal::TERM);
    site.machines[0].start_engine(&site.mesh);
    wait::until_true("a runs again", wait::LATER, || {
        site.machines[0].inspect("first")["State"]["Running"] == true
    });
    must_reach(&site.machines[0].namespace("first"), &b);
    wait::until_true("a has its address", wait::SOON, || {
        addresses_inside(&site.machines[0].namespace("first")) == std::slice::from_ref(&a)
    });

    // Both at once, without a word.
    site.machines[0].stop_router(Signal::KILL);
    site.machines[0].stop_engine(Signal::KILL);
    site.machines[0].begin_engine(&site.mesh);
    site.start_router(0, &[]);
    site.machines[0].wait_for_engine();
    wait::until_true("a runs again", wait::LATER, || {
        site.machines[0].inspect("first")["State"]["Running"] == true
    });
    wait::until_true("a has its address", wait::LATER, || {
        addresses_inside(&site.machines[0].namespace("first")) == std::slice::from_ref(&a)
    });
    must_reach(&site.machines[0].namespace("first"), &b);
}
