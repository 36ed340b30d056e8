//! Three hosts with an engine each.

use std::collections::BTreeSet;

use netns_tests::{needs_docker, wait};
use rustix::process::Signal;

use crate::support::{Site, addresses_inside, must_reach};

/// A name that moves over three hosts keeps its address, also while one of the routers is away;
/// the same names on all hosts at once are no obstacle to each other.
#[test]
fn names_move_over_three_hosts_and_may_be_on_all() {
    needs_docker!();
    let mut site = Site::new(3, &[]);
    for host in 0..3 {
        site.wait_for_network(host, "weft");
    }
    site.mesh.wait_routed(&[0, 1, 2]);
    let witness = site.machines[0].run("witness", "weft", &[]);
    let mac = |site: &Site, host: usize| {
        let shown = site.machines[host].inspect("mover");
        shown["NetworkSettings"]["Networks"]["weft"]["MacAddress"].clone()
    };
    let address = site.machines[0].run("mover", "weft", &[]);
    let first_mac = mac(&site, 0);
    site.machines[0].remove("mover");
    assert_eq!(site.machines[1].run("mover", "weft", &[]), address);
    assert_eq!(mac(&site, 1), first_mac);
    must_reach(&site.machines[1].namespace("mover"), &witness);

    // The host that it came from first is away while it moves on.
    site.machines[0].stop_router(Signal::KILL);
    site.machines[1].remove("mover");
    assert_eq!(site.machines[2].run("mover", "weft", &[]), address);
    assert_eq!(mac(&site, 2), first_mac);
    site.start_router(0, &[]);
    must_reach(&site.machines[2].namespace("mover"), &witness);
    must_reach(&site.machines[0].namespace("witness"), &address);
    // And back to where the router knew it long ago.
    site.machines[2].remove("mover");
    wait::until_true("the end is known on the first host", wait::SOON, || {
        let leases = site.mesh.get_json(0, "/leases").unwrap();
        let leases = leases.as_array().unwrap();
        leases
            .iter()
            .any(|l| l["identity"] == "mover" && l["state"] != "up")
    });
    assert_eq!(site.machines[0].run("mover", "weft", &[]), address);

    // The same names everywhere, begun at once.
    let names = ["agent", "proxy"];
    let all: Vec<String> = std::thread::scope(|scope| {
        let begin = |machine| {
            let run =
                move || names.map(|name| netns_tests::Machine::run(machine, name, "weft", &[]));
            scope.spawn(run)
        };
        let runs: Vec<_> = site.machines.iter().map(begin).collect();
        runs.into_iter()
            .flat_map(|run| run.join().unwrap())
            .collect()
    });
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), 6, "{all:?}");
    for machine in &site.machines {
        for address in &all {
            must_reach(&machine.namespace("agent"), address);
        }
    }
    // Each keeps its own on its host.
    for (machine, before) in site.machines.iter().zip(all.chunks(names.len())) {
        for (name, before) in names.iter().zip(before) {
            machine.remove(name);
            machine.run(name, "weft", &[]);
            wait::until_true("it has its address", wait::SOON, || {
                addresses_inside(&machine.namespace(name)) == std::slice::from_ref(before)
            });
        }
    }
}
