use std::process::Command;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;
use crate::packet_filter::rules::Match;
use crate::sys::xtables::Counter;
use testbed::root::{in_new_namespace, needs_root};

const VISIT: Visit = Visit {
    table: "filter",
    chain: CHAIN,
    mark: MARK,
    from: "FORWARD",
    reserved: "DOCKER-USER",
};
const CHAIN: &str = "WEFT-FORWARD";
const MARK: &str = "weft: its containers may pass";

fn rules() -> Vec<Rule> {
    let to: Ipv4Net = "10.7.0.0/16".parse().unwrap();
    vec![
        accept(vec![Match::CameBy("weave".into())], "from weave"),
        accept(
            vec![Match::LeavesBy("weave".into()), Match::To(to)],
            "to 10.7.0.0/16 by weave",
        ),
    ]
}

fn accept(matches: Vec<Match>, comment: &str) -> Rule {
    Rule {
        matches,
        verdict: Verdict::Accept,
        comment: comment.into(),
    }
}

/// A table as iptables 1.8.9 made it: its entries, and what the kernel says of them.
struct Recorded {
    name: &'static str,
    family: Family,
    info: Info,
    entries: Vec<u8>,
}

/// The lines that the recorded tables were made by.
const TABLES: [(&str, Family, &[&str]); 4] = [
    ("drop", Family::V4, &["-P FORWARD DROP"]),
    ("docker", Family::V4, DOCKER),
    ("jumps", Family::V4, JUMPS),
    ("docker6", Family::V6, DOCKER6),
];

/// As Docker 20.10 makes them, with a port published.
const DOCKER: &[&str] = &[
    "-P FORWARD DROP",
    "-N DOCKER",
    "-N DOCKER-ISOLATION-STAGE-1",
    "-N DOCKER-ISOLATION-STAGE-2",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
    "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
    "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2",
    "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
    "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP",
    "-A DOCKER-ISOLATION-STAGE-2 -j RETURN",
    "-A DOCKER-USER -j RETURN",
];

/// Ways from chain to chain: gotos, rules without a target, empty chains, names before and behind
/// ours.
const JUMPS: &[&str] = &[
    "-N zone",
    "-N A-ZONE",
    "-N EMPTY",
    "-A INPUT -p tcp -m multiport --dports 22,80 -m comment --comment in -g zone",
    "-A FORWARD -s 192.0.2.0/24",
    "-A FORWARD -s 192.0.2.1 -j EMPTY",
    "-A FORWARD -i eth+ -g zone",
    "-A zone -d 192.0.2.2",
    "-A zone -j A-ZONE",
    "-A zone -m limit --limit 3/sec -j LOG --log-prefix zone",
    "-A A-ZONE -p icmp",
    "-A A-ZONE -j REJECT --reject-with icmp-port-unreachable",
    "-A OUTPUT -j EMPTY",
];

const DOCKER6: &[&str] = &[
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -s 2001:db8::/32 -i docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
];

fn recorded() -> Vec<Recorded> {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/legacy_tables.json")).unwrap();
    TABLES
        .into_iter()
        .map(|(name, family, _)| {
            let table = &file[name];
            let numbers = |key: &str| {
                let all = table[key].as_array().unwrap();
                let all = all.iter().map(|number| number.as_u64().unwrap() as u32);
                all.collect::<Vec<_>>().try_into().unwrap()
            };
            let entries = decode(table["entries"].as_str().unwrap());
            let info = Info {
                hooks: table["hooks"].as_u64().unwrap() as u32,
                starts: numbers("starts"),
                policies: numbers("policies"),
                entries: table["number"].as_u64().unwrap() as u32,
                bytes: entries.len() as u32,
            };
            Recorded {
                name,
                family,
                info,
                entries,
            }
        })
        .collect()
}

fn decode(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

impl Recorded {
    fn table(&self) -> Table {
        Table::parse(Layout::of(self.family), &self.info, &self.entries).unwrap()
    }

    fn rules(&self) -> Vec<Rule> {
        match self.family {
            Family::V4 => rules(),
            Family::V6 => rules()[..1].to_vec(),
        }
    }
}

/// Reads a table again after it was put together.
fn again(table: &Table) -> Table {
    let blob = table.blob().unwrap();
    Table::parse(table.layout, &blob.info, &blob.entries).unwrap()
}

/// Returns what the kernel would see: each entry by its offset.
fn entry_at(table: &Table, blob: &blob::Blob, offset: usize) -> Option<Option<usize>> {
    let mut at = 0;
    for origin in &blob.origins {
        if at == offset {
            return Some(*origin);
        }
        let next = at + table.layout.target + 2;
        let bytes = u16::from_ne_bytes(blob.entries[next..next + 2].try_into().unwrap());
        at += usize::from(bytes);
    }
    None
}

/// Every entry of `before` is in `after`, in its order and byte by byte, but for where it jumps;
/// and it jumps to the same entry, or to one of ours in front of that.
fn assert_kept(before: &Table, after: &Table) {
    let (old, new) = (before.blob().unwrap(), after.blob().unwrap());
    let layout = before.layout;
    let mut at = (0, 0);
    let mut kept = 0;
    let length = |entries: &[u8]| {
        let next = layout.target + 2;
        usize::from(u16::from_ne_bytes(
            entries[next..next + 2].try_into().unwrap(),
        ))
    };
    for origin in &new.origins {
        let entry = &new.entries[at.1..][..length(&new.entries[at.1..])];
        at.1 += entry.len();
        if origin.is_none() {
            continue;
        }
        assert_eq!(*origin, Some(kept), "in order");
        kept += 1;
        let was = &old.entries[at.0..][..length(&old.entries[at.0..])];
        at.0 += was.len();
        if entry == was {
            continue;
        }
        let target = usize::from(u16::from_ne_bytes(
            was[layout.target..][..2].try_into().unwrap(),
        ));
        let verdict = target + 32;
        let (mut a, mut b) = (was.to_vec(), entry.to_vec());
        let to = |bytes: &[u8]| i32::from_ne_bytes(bytes[verdict..][..4].try_into().unwrap());
        let (from, to) = (to(&a), to(&b));
        a[verdict..verdict + 4].fill(0);
        b[verdict..verdict + 4].fill(0);
        assert_eq!(a, b, "only the jump differs");
        let wanted = entry_at(before, &old, from as usize).unwrap();
        let mut offset = to as usize;
        let mut found = entry_at(after, &new, offset).unwrap();
        if found.is_none() {
            offset += length(&new.entries[offset..]);
            found = entry_at(after, &new, offset).unwrap();
        }
        assert_eq!(found, wanted);
    }
    assert_eq!(kept, old.origins.len(), "all are there");
}

#[test]
fn recorded_tables_are_understood() {
    for recorded in recorded() {
        let table = recorded.table();
        let blob = table.blob().unwrap();
        assert_eq!(blob.entries, recorded.entries, "{}", recorded.name);
        assert_eq!(blob.info, recorded.info, "{}", recorded.name);
    }
}

#[test]
fn ours_goes_in_and_out_and_all_else_stays() {
    for recorded in recorded() {
        let (before, layout) = (recorded.table(), Layout::of(recorded.family));
        let after = edited(&before, &VISIT, &recorded.rules()).unwrap();
        assert_kept(&before, &after);
        let read = again(&after);
        let place = match recorded.name {
            "docker" | "docker6" => "DOCKER-USER",
            _ => "FORWARD",
        };
        let rule = &read.chain(place).unwrap().rules[0];
        assert_eq!(rule.comment(layout), Some(MARK.as_bytes()));
        assert_eq!(rule.leads, Leads::Chain(CHAIN.into()));
        let own = read.chain(CHAIN).unwrap();
        assert_eq!(own.rules.len(), recorded.rules().len());
        let names = read.chains.iter().filter(|chain| chain.hook.is_none());
        assert!(names.map(|chain| &chain.name).is_sorted());
        // Again it is the same, and what goes leaves nothing behind.
        assert_eq!(edited(&read, &VISIT, &recorded.rules()).unwrap(), read);
        let without = edited(&read, &VISIT, &[]).unwrap().blob().unwrap();
        assert_eq!(without.entries, recorded.entries, "{}", recorded.name);
        assert_eq!(without.info, recorded.info);
    }
}

#[test]
fn ours_is_put_right() {
    let recorded = &recorded()[1];
    let good = again(&edited(&recorded.table(), &VISIT, &rules()).unwrap());
    let jump = good.chain("DOCKER-USER").unwrap().rules[0].clone();
    let layout = good.layout;
    let mend = |change: &dyn Fn(&mut Table)| {
        let mut table = good.clone();
        change(&mut table);
        again(&edited(&again(&table), &VISIT, &rules()).unwrap())
    };
    // Flushed, in the wrong chain, twice, with a rule too few, too many, or another.
    let flush = |t: &mut Table| {
        t.chain_mut("DOCKER-USER").unwrap().rules.remove(0);
    };
    let misplace = |t: &mut Table| {
        t.chain_mut("DOCKER-USER").unwrap().rules.remove(0);
        t.chain_mut("FORWARD").unwrap().rules.push(jump.clone());
    };
    let repeat = |t: &mut Table| t.chain_mut("FORWARD").unwrap().rules.push(jump.clone());
    let shorten = |t: &mut Table| drop(t.chain_mut(CHAIN).unwrap().rules.pop());
    let add = |t: &mut Table| {
        let rule = entry::entry(layout, &accept(Vec::new(), "x")).unwrap();
        t.chain_mut(CHAIN).unwrap().rules.push(rule);
    };
    let swap = |t: &mut Table| t.chain_mut(CHAIN).unwrap().rules.swap(0, 1);
    // Where no packet comes.
    let behind = |t: &mut Table| t.chain_mut("DOCKER-USER").unwrap().rules.swap(0, 1);
    let changes: [&dyn Fn(&mut Table); 7] =
        [&flush, &misplace, &repeat, &shorten, &add, &swap, &behind];
    for change in changes {
        assert_eq!(
            mend(change).blob().unwrap().entries,
            good.blob().unwrap().entries
        );
    }
    // What the user puts in front stays in front, and what others lead to us is theirs.
    let mut table = good.clone();
    let theirs = entry::entry(layout, &accept(Vec::new(), "mine")).unwrap();
    let forward = &mut table.chain_mut("DOCKER-USER").unwrap().rules;
    forward.insert(0, theirs.clone());
    let mut lead = jump.clone();
    lead.bytes[layout.matches + 32] = b'x';
    forward.push(lead.clone());
    let table = again(&table);
    assert_eq!(edited(&table, &VISIT, &rules()).unwrap(), table);
    let without = again(&edited(&table, &VISIT, &[]).unwrap());
    let rules = &without.chain("DOCKER-USER").unwrap().rules;
    assert_eq!(rules.len(), 3);
    assert!(rules[0].is_like(&theirs, layout) && rules[2].is_like(&lead, layout));
    assert_eq!(without.chain(CHAIN).unwrap().rules, []);
    assert_eq!(edited(&without, &VISIT, &[]).unwrap(), without);
}

/// A packet that the user drops is dropped, wherever in his chain he says so.
#[test]
fn rules_of_the_user_come_first() {
    let recorded = &recorded()[1];
    let mut table = recorded.table();
    let layout = table.layout;
    let theirs = entry::entry(layout, &accept(Vec::new(), "mine")).unwrap();
    let user = &mut table.chain_mut("DOCKER-USER").unwrap().rules;
    user.insert(0, theirs.clone());
    let mut table = again(&edited(&again(&table), &VISIT, &rules()).unwrap());
    let is_ours = |rule: &Entry| rule.leads == Leads::Chain(CHAIN.into());
    let ours = |table: &Table| {
        let rules = &table.chain("DOCKER-USER").unwrap().rules;
        rules.iter().map(is_ours).collect::<Vec<_>>()
    };
    assert_eq!(ours(&table), [false, true, false]);
    // Another one, at the end of a chain that ends with no return.
    let user = &mut table.chain_mut("DOCKER-USER").unwrap().rules;
    user.pop();
    user.push(theirs);
    let table = again(&edited(&again(&table), &VISIT, &rules()).unwrap());
    assert_eq!(ours(&table), [false, false, true]);
}

#[test]
fn what_counted_goes_on_counting() {
    let recorded = &recorded()[1];
    let table = edited(&recorded.table(), &VISIT, &rules()).unwrap();
    let blob = table.blob().unwrap();
    let count = |i: u64| Counter {
        packets: i + 1,
        bytes: 100 * i,
    };
    let before: Vec<Counter> = (0..u64::from(recorded.info.entries)).map(count).collect();
    let after = blob.counters(&before);
    assert_eq!(after.len(), blob.info.entries as usize);
    let kept: Vec<Counter> = after.iter().filter(|c| c.packets != 0).copied().collect();
    assert_eq!(kept, before);
    // The kernel knows fewer than it said: no harm.
    assert_eq!(blob.counters(&[]).len(), after.len());
}

proptest! {
    /// Whatever the kernel says, it is refused or understood whole.
    #[test]
    fn broken_tables_are_refused(
        which in 0..TABLES.len(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
        start: u32,
    ) {
        let mut recorded = recorded().swap_remove(which);
        let layout = Layout::of(recorded.family);
        let cut = cut.index(recorded.entries.len());
        prop_assert!(Table::parse(layout, &recorded.info, &recorded.entries[..cut]).is_none());
        let mut info = recorded.info;
        info.starts[2] = start;
        if start != recorded.info.starts[2] {
            prop_assert!(Table::parse(layout, &info, &recorded.entries).is_none());
        }
        let at = at.index(recorded.entries.len());
        recorded.entries[at] = byte;
        if let Some(table) = Table::parse(layout, &recorded.info, &recorded.entries) {
            prop_assert_eq!(&table.blob().unwrap().entries, &recorded.entries);
            if let Some(after) = edited(&table, &VISIT, &recorded.rules()) {
                assert_kept(&table, &after);
            }
        }
    }

    /// Chains with any jumps between them.
    #[test]
    fn any_jumps_are_kept(
        chains in prop::collection::vec(
            prop::collection::vec((0..7_usize, any::<bool>()), 0..5), 6
        ),
        ours in 0..3_usize,
    ) {
        let drop = &recorded()[0];
        let mut table = drop.table();
        let layout = table.layout;
        let names = ["A", "M", "WEFT-A", "WEFT-Z", "b"];
        for (i, jumps) in chains.iter().enumerate() {
            let rules = jumps.iter().map(|(to, named)| {
                let verdict = match names.get(*to) {
                    Some(name) => Verdict::Jump((*name).into()),
                    None => Verdict::Return,
                };
                let comment = if *named { MARK } else { "other" };
                let rule = Rule { matches: Vec::new(), verdict, comment: comment.into() };
                entry::entry(layout, &rule).unwrap()
            });
            let rules = rules.collect();
            match names.get(i) {
                None => table.chain_mut("FORWARD").unwrap().rules = rules,
                Some(name) => table.chains.push(Chain {
                    name: (*name).into(),
                    hook: None,
                    head: vec![entry::head(layout, name)],
                    rules,
                    last: entry::last(layout),
                }),
            }
        }
        let before = again(&table);
        let after = edited(&before, &VISIT, &rules()[..ours.min(2)]).unwrap();
        assert_kept(&before, &after);
        let read = again(&after);
        prop_assert_eq!(&edited(&read, &VISIT, &rules()[..ours.min(2)]).unwrap(), &read);
        let without = edited(&read, &VISIT, &[]).unwrap();
        prop_assert_eq!(without.blob().unwrap().entries, before.blob().unwrap().entries);
    }
}

#[test]
fn the_lock_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let soon = Duration::from_millis(50);
    let held = lock(&path, soon).unwrap().unwrap();
    let error = lock(&path, soon).unwrap_err().to_string();
    assert!(
        error.starts_with("wait for the iptables that holds "),
        "{error}"
    );
    drop(held);
    assert!(lock(&path, soon).unwrap().is_some());
    // Where there is no place for one, nobody else has it.
    assert!(
        lock(&folder.path().join("none/lock"), soon)
            .unwrap()
            .is_none()
    );
}

fn tool(family: Family, suffix: &str) -> String {
    let name = match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    };
    format!("{name}{suffix}")
}

/// Runs iptables in the namespace of the calling thread. None, loudly, where it is not installed.
fn iptables(test: &str, program: &str, line: &str) -> Option<String> {
    match Command::new(program).args(line.split_whitespace()).output() {
        Ok(output) => {
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {line}: {complaints}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            testbed::skips::skip(test, &format!("the program {program} ({error})"));
            None
        }
    }
}

fn names() -> String {
    std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default()
}

/// Returns the table with what it counted, without times.
fn saved(family: Family) -> Vec<String> {
    let text = iptables("", &tool(family, "-save"), "-c").unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_table_that_is_not_there_is_not_made() {
    needs_root!();
    in_new_namespace(|| {
        assert!(!apply(Family::V4, &VISIT, &rules()).unwrap());
        assert!(!remove(Family::V6, &VISIT).unwrap());
        assert_eq!(names(), "");
    });
}

/// The real kernel takes what is made of each recorded table, and the real iptables shows it.
#[test]
fn the_kernel_takes_what_is_made() {
    needs_root!();
    let test = "legacy::tests::the_kernel_takes_what_is_made";
    for (recorded, (_, family, lines)) in recorded().iter().zip(TABLES) {
        let tool = tool(family, "");
        let done = in_new_namespace(|| {
            for line in lines {
                iptables(test, &tool, &format!("-w {line}"))?;
            }
            let count = "-w -Z FORWARD";
            iptables(test, &tool, count)?;
            // Something to count: the namespace sends to itself.
            let _ = Command::new("ping")
                .args(["-c1", "-W1", "127.0.0.1"])
                .output();
            let before = saved(family);
            assert!(apply(family, &VISIT, &recorded.rules()).unwrap());
            assert!(!apply(family, &VISIT, &recorded.rules()).unwrap());
            let after = saved(family);
            let jump = format!("--comment \"{MARK}\" -j {CHAIN}");
            assert_eq!(after.iter().filter(|line| line.contains(&jump)).count(), 1);
            let ours = |line: &&String| line.contains("WEFT") || line.contains(CHAIN);
            let others: Vec<&String> = after.iter().filter(|line| !ours(line)).collect();
            assert_eq!(others, before.iter().collect::<Vec<_>>());
            // iptables can go on working with it.
            iptables(test, &tool, "-w -N later")?;
            iptables(test, &tool, "-w -I FORWARD -j later")?;
            assert!(!apply(family, &VISIT, &recorded.rules()).unwrap());
            iptables(test, &tool, "-w -F FORWARD")?;
            iptables(test, &tool, "-w -X later")?;
            iptables(test, &tool, "-w -P FORWARD DROP")?;
            assert!(apply(family, &VISIT, &recorded.rules()).unwrap());
            let shown = iptables(test, &tool, "-w -S FORWARD")?;
            assert!(shown.contains(&jump), "{shown}");
            assert!(remove(family, &VISIT).unwrap());
            assert!(!remove(family, &VISIT).unwrap());
            assert!(!saved(family).iter().any(|line| ours(&line)));
            Some(())
        });
        if done.is_none() {
            return;
        }
    }
}

/// What packets counted is there afterwards.
#[test]
fn counts_survive_in_the_kernel() {
    needs_root!();
    let test = "legacy::tests::counts_survive_in_the_kernel";
    in_new_namespace(|| {
        for line in [
            "-P FORWARD DROP",
            "-A OUTPUT -o lo",
            "-A INPUT -i lo -j ACCEPT",
        ] {
            if iptables(test, "iptables-legacy", &format!("-w {line}")).is_none() {
                return;
            }
        }
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..7 {
            socket
                .send_to(&[0; 72], socket.local_addr().unwrap())
                .unwrap();
        }
        let before = saved(Family::V4);
        assert!(
            before.contains(&"[7:700] -A OUTPUT -o lo".into()),
            "{before:?}"
        );
        assert!(apply(Family::V4, &VISIT, &rules()).unwrap());
        let after = saved(Family::V4);
        assert!(before.iter().all(|line| after.contains(line)), "{after:?}");
        assert!(remove(Family::V4, &VISIT).unwrap());
        assert_eq!(saved(Family::V4), before);
    });
}

/// What iptables makes of the lines here is what was recorded. With `WEFT_RECORD` in the
/// environment it is recorded anew.
#[test]
fn recorded_tables_are_real_ones() {
    needs_root!();
    let test = "legacy::tests::recorded_tables_are_real_ones";
    let recorded = recorded();
    let recording = std::env::var_os("WEFT_RECORD").is_some();
    let mut all = serde_json::Map::new();
    for ((name, family, lines), recorded) in TABLES.into_iter().zip(&recorded) {
        let read = in_new_namespace(|| {
            for line in lines {
                iptables(test, &tool(family, ""), &format!("-w {line}"))?;
            }
            let tables = Tables::open(family).unwrap();
            let info = tables.info(VISIT.table).unwrap();
            Some((info, tables.entries(VISIT.table, info.bytes).unwrap()))
        });
        let Some((info, entries)) = read else { return };
        let table = Table::parse(Layout::of(family), &info, &entries).unwrap();
        let shape = |table: &Table| {
            let chains = table.chains.iter();
            let shape = chains.map(|chain| (chain.name.clone(), chain.rules.len()));
            shape.collect::<Vec<_>>()
        };
        let same = shape(&table) == shape(&recorded.table());
        assert!(same || recording, "{name}: {:?}", shape(&table));
        let hex: String = entries.iter().map(|byte| format!("{byte:02x}")).collect();
        let table = serde_json::json!({
            "hooks": info.hooks, "starts": info.starts, "policies": info.policies,
            "number": info.entries, "entries": hex,
        });
        all.insert(name.into(), table);
    }
    if recording {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/legacy_tables.json");
        let text = serde_json::to_string_pretty(&all).unwrap() + "\n";
        std::fs::write(path, text).unwrap();
    }
}
