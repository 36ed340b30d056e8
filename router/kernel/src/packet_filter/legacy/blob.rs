//! A table of iptables-legacy: one blob of entries, taken apart into chains and put together again.
//!
//! ```text
//! rules of INPUT    policy | rules of FORWARD policy | rules of OUTPUT policy |
//! ERROR "A-CHAIN"   rules   RETURN |  ...  | ERROR "ERROR"
//! ```
//!
//! A chain of the kernel's begins where a hook does and ends with its policy. One of the user's
//! begins with a target `ERROR` that bears its name and ends with a return. Jumps are offsets to
//! the entry behind that name; all are set anew when a table is put together. An entry is
//!
//! ```text
//! addresses, interfaces, ... | target's offset u16 | next entry's offset u16 | comefrom u32 |
//! packets u64, bytes u64 | matches | target: size u16, name 29, revision u8, data
//! ```
//!
//! with all numbers in the machine's order (linux/netfilter_ipv4/ip_tables.h, ip6_tables.h).

use std::collections::BTreeMap;

use crate::sys::xtables::{Counter, Family, HOOKS, Info};

/// The kernel's chains, by the numbers of their hooks.
const HOOK_NAMES: [&str; HOOKS] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Offsets in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Source address, destination, and masks of both.
    pub(super) address_bytes: usize,
    /// Flags for inverted matches.
    pub(super) inverted: usize,
    /// The target's offset; that of the next entry is behind it.
    pub(super) target: usize,
    pub(super) counters: usize,
    /// Offset of the matches.
    pub(super) matches: usize,
}

impl Layout {
    pub(super) const fn of(family: Family) -> Layout {
        match family {
            Family::V4 => Layout {
                address_bytes: 4,
                inverted: 83,
                target: 88,
                counters: 96,
                matches: 112,
            },
            Family::V6 => Layout {
                address_bytes: 16,
                inverted: 132,
                target: 140,
                counters: 152,
                matches: 168,
            },
        }
    }
}

/// A table as chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) layout: Layout,
    hooks: u32,
    /// In their order in the blob.
    pub(super) chains: Vec<Chain>,
    /// The entries behind all chains.
    end: Vec<Entry>,
}

/// A chain of the kernel's or of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: Vec<u8>,
    /// The number of the hook that enters it.
    pub(super) hook: Option<usize>,
    /// The entry that carries its name; empty for a chain of the kernel's.
    pub(super) head: Vec<Entry>,
    pub(super) rules: Vec<Entry>,
    /// Its policy, or the return.
    pub(super) last: Entry,
}

/// A rule, or what holds chains together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) bytes: Vec<u8>,
    pub(super) leads: Leads,
    /// Which entry of the table it was when that was read.
    pub(super) origin: Option<usize>,
}

/// Destination of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// Nowhere else in the table.
    Nowhere,
    /// To a chain of the user's.
    Chain(Vec<u8>),
    /// To an entry, by its place when the table was read.
    Entry(usize),
}

/// A table as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) info: Info,
    pub(super) entries: Vec<u8>,
    /// For each entry, which one of the table that was read it is.
    pub(super) origins: Vec<Option<usize>>,
}

impl Table {
    /// Takes a table apart. `None` if it is laid out in a way that is not known here: whatever is
    /// returned gives the same bytes when it is put together.
    pub(super) fn parse(layout: Layout, info: &Info, entries: &[u8]) -> Option<Table> {
        let split = split(layout, entries)?;
        let index: BTreeMap<usize, usize> =
            split.iter().enumerate().map(|(i, e)| (e.0, i)).collect();
        let hook_at = |offset: usize| {
            let on = |hook: &usize| info.hooks & 1 << hook != 0;
            (0..HOOKS).find(|hook| on(hook) && info.starts[*hook] as usize == offset)
        };
        let bytes = |i: usize| split[i].1;
        let mut table = Table {
            layout,
            hooks: info.hooks,
            chains: Vec::new(),
            end: Vec::new(),
        };
        let plain = |i: usize| Entry {
            bytes: bytes(i).to_vec(),
            leads: Leads::Nowhere,
            origin: Some(i),
        };
        let mut at = 0;
        while let Some(&(offset, entry)) = split.get(at) {
            let hook = hook_at(offset);
            let (name, first, last) = if let Some(hook) = hook {
                let last = *index.get(&(info.policies[hook] as usize))?;
                (HOOK_NAMES[hook].as_bytes().to_vec(), at, last)
            } else {
                let name = error_name(layout, entry)?;
                let is_head = |i: &usize| error_name(layout, bytes(*i)).is_some();
                let Some(next) = (at + 1..split.len()).find(is_head) else {
                    table.end = (at..split.len()).map(plain).collect();
                    break;
                };
                (name.to_vec(), at + 1, next - 1)
            };
            if last < first {
                return None;
            }
            table.chains.push(Chain {
                name,
                hook,
                head: (at..first).map(plain).collect(),
                rules: (first..last).map(plain).collect(),
                last: plain(last),
            });
            at = last + 1;
        }
        table.resolve(&index)?;
        let same = table.blob()?;
        (same.entries == entries && same.info == *info).then_some(table)
    }

    /// Turns offsets of jumps into what is there.
    fn resolve(&mut self, index: &BTreeMap<usize, usize>) -> Option<()> {
        let layout = self.layout;
        let firsts: BTreeMap<usize, Vec<u8>> = self
            .chains
            .iter()
            .filter(|chain| chain.hook.is_none())
            .filter_map(|chain| Some((chain.first().origin?, chain.name.clone())))
            .collect();
        for entry in self.entries_mut() {
            let Some(verdict) = verdict(layout, &entry.bytes).filter(|verdict| *verdict >= 0)
            else {
                continue;
            };
            let to = *index.get(&usize::try_from(verdict).ok()?)?;
            entry.leads = match firsts.get(&to) {
                Some(name) => Leads::Chain(name.clone()),
                None => Leads::Entry(to),
            };
        }
        Some(())
    }

    /// Puts the table together. `None` if a rule leads to what is not there.
    pub(super) fn blob(&self) -> Option<Blob> {
        // As the kernel says of hooks that do not enter the table.
        let mut info = Info {
            hooks: self.hooks,
            starts: [u32::MAX; HOOKS],
            policies: [u32::MAX; HOOKS],
            ..Info::default()
        };
        let (mut chains, mut origins) = (BTreeMap::new(), BTreeMap::new());
        let mut at = 0_u32;
        let mut place = |entry: &Entry| {
            let here = at;
            at += entry.bytes.len() as u32;
            if let Some(origin) = entry.origin {
                origins.insert(origin, here);
            }
            here
        };
        for chain in &self.chains {
            chain.head.iter().for_each(|entry| {
                place(entry);
            });
            let rules: Vec<u32> = chain.rules.iter().map(&mut place).collect();
            let last = place(&chain.last);
            let first = rules.first().copied().unwrap_or(last);
            match chain.hook {
                Some(hook) => (info.starts[hook], info.policies[hook]) = (first, last),
                None => drop(chains.insert(&chain.name, first)),
            }
        }
        self.end.iter().for_each(|entry| {
            place(entry);
        });
        let mut blob = Blob {
            info,
            entries: Vec::with_capacity(at as usize),
            origins: Vec::new(),
        };
        for entry in self.entries() {
            let start = blob.entries.len();
            blob.entries.extend_from_slice(&entry.bytes);
            let to = match &entry.leads {
                Leads::Nowhere => None,
                Leads::Chain(name) => Some(*chains.get(name)?),
                Leads::Entry(origin) => Some(*origins.get(origin)?),
            };
            if let Some(to) = to {
                let at = start + target_offset(self.layout, &entry.bytes)? + TARGET_BYTES;
                blob.entries[at..at + 4].copy_from_slice(&to.to_ne_bytes());
            }
            blob.origins.push(entry.origin);
        }
        blob.info.bytes = blob.entries.len() as u32;
        blob.info.entries = blob.origins.len() as u32;
        Some(blob)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let chains = self.chains.iter().flat_map(|chain| {
            let last = std::iter::once(&chain.last);
            chain.head.iter().chain(&chain.rules).chain(last)
        });
        chains.chain(&self.end)
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let chains = self.chains.iter_mut().flat_map(|chain| {
            let last = std::iter::once(&mut chain.last);
            chain.head.iter_mut().chain(&mut chain.rules).chain(last)
        });
        chains.chain(&mut self.end)
    }

    pub(super) fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains
            .iter()
            .find(|chain| chain.name == name.as_bytes())
    }

    pub(super) fn chain_mut(&mut self, name: &str) -> Option<&mut Chain> {
        self.chains
            .iter_mut()
            .find(|chain| chain.name == name.as_bytes())
    }
}

impl Chain {
    /// Returns the entry that a jump to this chain arrives at.
    fn first(&self) -> &Entry {
        self.rules.first().unwrap_or(&self.last)
    }

    /// Returns true if packets that reach its end are dropped.
    pub(super) fn drops(&self, layout: Layout) -> bool {
        verdict(layout, &self.last.bytes) == Some(super::entry::DROP)
    }
}

impl Entry {
    /// Returns true if it does the same as another. What the kernel writes into it does not count.
    pub(super) fn is_like(&self, other: &Entry, layout: Layout) -> bool {
        let plain = |entry: &Entry| {
            let mut bytes = entry.bytes.clone();
            // From comefrom on.
            bytes[layout.target + 4..layout.matches].fill(0);
            let target = target_offset(layout, &bytes).filter(|_| entry.leads != Leads::Nowhere);
            if let Some(target) = target {
                bytes[target + TARGET_BYTES..target + TARGET_BYTES + 4].fill(0);
            }
            bytes
        };
        self.leads == other.leads && plain(self) == plain(other)
    }

    /// Returns the text of its comment, if it has one.
    pub(super) fn comment(&self, layout: Layout) -> Option<&[u8]> {
        let end = target_offset(layout, &self.bytes)?;
        let mut matches = self.bytes.get(layout.matches..end)?;
        while matches.len() >= TARGET_BYTES {
            let bytes = usize::from(u16_at(matches, 0)?);
            let (this, rest) = matches.split_at_checked(bytes.max(TARGET_BYTES))?;
            if text(&this[2..TARGET_BYTES - 1]) == b"comment" {
                return Some(text(&this[TARGET_BYTES..]));
            }
            matches = rest;
        }
        None
    }
}

impl Blob {
    /// Returns what each entry has counted, given what those of the table that was read have.
    pub(super) fn counters(&self, before: &[Counter]) -> Vec<Counter> {
        let of = |origin: &Option<usize>| origin.and_then(|origin| before.get(origin).copied());
        self.origins
            .iter()
            .map(|origin| of(origin).unwrap_or_default())
            .collect()
    }
}

/// Entries with their offsets.
fn split(layout: Layout, mut rest: &[u8]) -> Option<Vec<(usize, &[u8])>> {
    let (mut entries, mut offset) = (Vec::new(), 0);
    while !rest.is_empty() {
        let bytes = usize::from(u16_at(rest, layout.target + 2)?);
        let (entry, behind) = rest.split_at_checked(bytes)?;
        let target = target_offset(layout, entry)?;
        if target < layout.matches || target + TARGET_BYTES > bytes {
            return None;
        }
        entries.push((offset, entry));
        offset += bytes;
        rest = behind;
    }
    Some(entries)
}

fn target_offset(layout: Layout, entry: &[u8]) -> Option<usize> {
    Some(usize::from(u16_at(entry, layout.target)?))
}

fn target_name(layout: Layout, entry: &[u8]) -> Option<&[u8]> {
    let target = target_offset(layout, entry)?;
    Some(text(entry.get(target + 2..target + TARGET_BYTES - 1)?))
}

/// Returns the verdict of a standard target: an offset if it is not negative.
fn verdict(layout: Layout, entry: &[u8]) -> Option<i32> {
    if !target_name(layout, entry)?.is_empty() {
        return None;
    }
    let at = target_offset(layout, entry)? + TARGET_BYTES;
    let bytes = entry.get(at..at + 4)?;
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Returns the name that a target `ERROR` bears.
fn error_name(layout: Layout, entry: &[u8]) -> Option<&[u8]> {
    if target_name(layout, entry)? != b"ERROR" {
        return None;
    }
    let target = target_offset(layout, entry)?;
    Some(text(&entry[target + TARGET_BYTES..]))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// Returns the bytes up to the first zero.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Size in bytes of `struct xt_entry_target` and `struct xt_entry_match` without their data.
pub(super) const TARGET_BYTES: usize = 32;
