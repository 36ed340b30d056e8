//! A chain of ours in a table of `iptables-legacy`.
//!
//! That kind of iptables has a packet filter of its own in the kernel, which sees packets beside
//! nf_tables, and a drop there is as final. Its tables are read and replaced whole. Replacing is
//! one step for packets; that nobody else replaces the table between our reading and our writing
//! is a matter of a lock, which every iptables takes, and the kernel refuses a table that was read
//! with another number of rules. What the entries have counted is kept.
//!
//! A table that nobody made is neither made nor asked for, as asking would make it.

mod blob;
mod entry;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::rules::{Family, Rule, Verdict, Visit};
use crate::error::NetError;
use crate::sys::xtables::{Info, Tables};
use blob::{Chain, Entry, Layout, Leads, Table};

/// Number of attempts to replace a table that others change meanwhile.
const ATTEMPTS_MAX: usize = 5;
/// Maximum time to wait for the lock before a change is given up.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);

/// Makes the chain these rules, and has packets sent there; without rules nothing of ours stays.
/// Returns whether anything had to be changed.
pub fn apply(family: Family, visit: &Visit, rules: &[Rule]) -> Result<bool, NetError> {
    if !exists(family, visit.table) {
        return Ok(false);
    }
    let failed = |error: &io::Error| NetError::io(what(family, visit.table), error);
    let tables = Tables::open(family).map_err(|error| failed(&error))?;
    let (_, table) = read(&tables, family, visit.table)?;
    if edited(&table, visit, rules).is_none_or(|edited| edited == table) {
        return Ok(false);
    }
    let path = std::env::var_os("XTABLES_LOCKFILE");
    let path = path.map_or(LOCK.into(), PathBuf::from);
    let _lock = lock(&path, LOCK_TIME_MAX)?;
    for _ in 0..ATTEMPTS_MAX {
        let (info, table) = read(&tables, family, visit.table)?;
        let Some(new) = edited(&table, visit, rules).filter(|new| *new != table) else {
            return Ok(false);
        };
        match replace(&tables, visit.table, &info, &new) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(|()| true).map_err(|error| failed(&error)),
        }
    }
    Err(failed(&Errno::AGAIN.into()))
}

/// Removes what is ours. Returns whether there was anything.
pub fn remove(family: Family, visit: &Visit) -> Result<bool, NetError> {
    apply(family, visit, &[])
}

/// Returns true if somebody made the table, in the namespace of the calling thread.
fn exists(family: Family, table: &str) -> bool {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let names = std::fs::read_to_string(path).unwrap_or_default();
    names.lines().any(|name| name == table)
}

fn what(family: Family, table: &str) -> String {
    let tool = match family {
        Family::V4 => "iptables-legacy",
        Family::V6 => "ip6tables-legacy",
    };
    format!("change table {table} of {tool}")
}

fn read(tables: &Tables, family: Family, table: &str) -> Result<(Info, Table), NetError> {
    let read = || {
        for _ in 0..ATTEMPTS_MAX {
            let info = tables.info(table)?;
            match tables.entries(table, info.bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(|entries| (info, entries)),
            }
        }
        Err(Errno::AGAIN.into())
    };
    let what = || what(family, table);
    let (info, entries) = read().map_err(|error| NetError::io(what(), &error))?;
    let parsed = Table::parse(Layout::of(family), &info, &entries);
    let unreadable = || NetError::Malformed { what: what() };
    Ok((info, parsed.ok_or_else(unreadable)?))
}

fn replace(tables: &Tables, name: &str, before: &Info, table: &Table) -> io::Result<()> {
    // Each way in it was resolved when the table was read or edited.
    let blob = table.blob().ok_or(Errno::INVAL)?;
    let counters = tables.replace(name, &blob.info, &blob.entries, before.entries)?;
    tables.add_counters(name, &blob.counters(&counters))
}

/// Returns the table as it should be. `None` if the chain that packets come from is not there, or
/// there is no entry for these rules.
fn edited(table: &Table, visit: &Visit, rules: &[Rule]) -> Option<Table> {
    let layout = table.layout;
    let from = table.chain(visit.from)?;
    let leads_to = |entry: &Entry, chain: &str| entry.leads == Leads::Chain(chain.into());
    let is_marked = |entry: &Entry| {
        entry
            .comment(layout)
            .is_some_and(|c| c == visit.mark.as_bytes())
    };
    let ours = |entry: &Entry| leads_to(entry, visit.chain) && is_marked(entry);
    let filters = from.drops(layout) || from.rules.iter().any(|rule| !ours(rule));
    let wanted = filters && !rules.is_empty();
    let is_reserved = from.rules.iter().any(|rule| leads_to(rule, visit.reserved));
    let place = if is_reserved {
        visit.reserved
    } else {
        visit.from
    };

    let mut new = table.clone();
    let in_place = |chain: &Chain| {
        let count = chain.rules.iter().filter(|rule| ours(rule)).count();
        if !wanted || chain.name != place.as_bytes() {
            return count == 0;
        }
        let reached = &chain.rules[..end(&chain.rules, layout)];
        count == 1 && (!is_reserved || reached.last().is_some_and(ours))
    };
    if !new.chains.iter().all(in_place) {
        for chain in &mut new.chains {
            chain.rules.retain(|rule| !ours(rule));
        }
        if wanted {
            let jump = Rule {
                matches: Vec::new(),
                verdict: Verdict::Jump(visit.chain.into()),
                comment: visit.mark.into(),
            };
            let jump = entry::entry(layout, &jump)?;
            let rules = &mut new.chain_mut(place)?.rules;
            let at = if is_reserved { end(rules, layout) } else { 0 };
            rules.insert(at, jump);
        }
    }
    if wanted {
        let rules: Option<Vec<Entry>> = rules.iter().map(|r| entry::entry(layout, r)).collect();
        make_own(&mut new, visit.chain, rules?);
    } else {
        remove_own(&mut new, visit.chain);
    }
    Some(new)
}

/// Returns how many of these rules a packet can reach: those before the first that always returns.
fn end(rules: &[Entry], layout: Layout) -> usize {
    let returns = |rule: &Entry| rule.is_like(&entry::last(layout), layout);
    rules.iter().position(returns).unwrap_or(rules.len())
}

/// Makes the chain of ours contain just these.
fn make_own(table: &mut Table, name: &str, rules: Vec<Entry>) {
    let layout = table.layout;
    if let Some(own) = table.chain_mut(name) {
        let same = own.rules.len() == rules.len()
            && own
                .rules
                .iter()
                .zip(&rules)
                .all(|(a, b)| a.is_like(b, layout));
        if !same {
            own.rules = rules;
        }
        return;
    }
    // In the order of names, as iptables keeps them.
    let behind = |chain: &Chain| chain.hook.is_none() && chain.name.as_slice() > name.as_bytes();
    let at = table.chains.iter().position(behind);
    let own = Chain {
        name: name.into(),
        hook: None,
        head: vec![entry::head(layout, name)],
        rules,
        last: entry::last(layout),
    };
    table.chains.insert(at.unwrap_or(table.chains.len()), own);
}

/// Removes the chain of ours, or empties it if rules of others lead there.
fn remove_own(table: &mut Table, name: &str) {
    let leads_here = |rule: &Entry| rule.leads == Leads::Chain(name.into());
    let mut rules = table.chains.iter().flat_map(|chain| &chain.rules);
    if rules.any(leads_here) {
        if let Some(own) = table.chain_mut(name) {
            own.rules.clear();
        }
    } else {
        table.chains.retain(|chain| chain.name != name.as_bytes());
    }
}

/// Returns the lock that every iptables of this host takes. `None` where its file cannot be made.
fn lock(path: &Path, time: Duration) -> Result<Option<File>, NetError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let Ok(file) = options.open(path) else {
        return Ok(None);
    };
    let end = Instant::now() + time;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => {
                return Err(NetError::io(format!("lock {}", path.display()), &error));
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                let what = format!("wait for the iptables that holds {}", path.display());
                return Err(NetError::io(what, &Errno::AGAIN.into()));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

const LOCK: &str = "/run/xtables.lock";

#[cfg(test)]
mod tests;
