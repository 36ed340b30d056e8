//! A rule as an entry of a table.

use super::blob::{Entry, Layout, Leads, TARGET_BYTES};
use crate::packet_filter::rules::{COMMENT_BYTES_MAX, Match, Rule, Verdict};

pub(super) const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// Returns an entry that does what the rule says. `None` for what only tables of our own contain.
pub(super) fn entry(layout: Layout, rule: &Rule) -> Option<Entry> {
    let mut head = vec![0; layout.matches];
    for matched in &rule.matches {
        condition(layout, &mut head, matched)?;
    }
    let (verdict, leads) = match &rule.verdict {
        Verdict::Accept => (ACCEPT, Leads::Nowhere),
        Verdict::Drop => (DROP, Leads::Nowhere),
        Verdict::Return => (RETURN, Leads::Nowhere),
        Verdict::Jump(chain) => (0, Leads::Chain(chain.clone().into_bytes())),
        Verdict::Masquerade => return None,
    };
    let matches = part("comment", &comment(&rule.comment));
    let target = part("", &verdict.to_ne_bytes());
    Some(assemble(layout, head, &matches, &target, leads))
}

/// Returns the entry that a chain of this name begins with.
pub(super) fn head(layout: Layout, name: &str) -> Entry {
    let mut text = [0; 30];
    text[..name.len()].copy_from_slice(name.as_bytes());
    let target = part("ERROR", &text);
    assemble(
        layout,
        vec![0; layout.matches],
        &[],
        &target,
        Leads::Nowhere,
    )
}

/// Returns the entry that a chain of the user's ends with.
pub(super) fn last(layout: Layout) -> Entry {
    let target = part("", &RETURN.to_ne_bytes());
    assemble(
        layout,
        vec![0; layout.matches],
        &[],
        &target,
        Leads::Nowhere,
    )
}

fn assemble(
    layout: Layout,
    mut bytes: Vec<u8>,
    matches: &[u8],
    target: &[u8],
    leads: Leads,
) -> Entry {
    let at = (bytes.len() + matches.len()) as u16;
    let next = at + target.len() as u16;
    bytes[layout.target..layout.target + 2].copy_from_slice(&at.to_ne_bytes());
    bytes[layout.target + 2..layout.target + 4].copy_from_slice(&next.to_ne_bytes());
    bytes.extend_from_slice(matches);
    bytes.extend_from_slice(target);
    Entry {
        bytes,
        leads,
        origin: None,
    }
}

/// Returns a match or a target: size, name, revision 0, data.
fn part(name: &str, data: &[u8]) -> Vec<u8> {
    let bytes = (TARGET_BYTES + data.len()).next_multiple_of(align_of::<u64>());
    let mut part = vec![0; bytes];
    part[..2].copy_from_slice(&(bytes as u16).to_ne_bytes());
    part[2..2 + name.len()].copy_from_slice(name.as_bytes());
    part[TARGET_BYTES..TARGET_BYTES + data.len()].copy_from_slice(data);
    part
}

fn comment(comment: &str) -> [u8; 256] {
    let mut data = [0; 256];
    let end = comment.floor_char_boundary(COMMENT_BYTES_MAX);
    data[..end].copy_from_slice(&comment.as_bytes()[..end]);
    data
}

fn condition(layout: Layout, head: &mut [u8], matched: &Match) -> Option<()> {
    let length = layout.address_bytes;
    let interfaces = 4 * length;
    match matched {
        Match::CameBy(name) => interface(head, interfaces, name),
        Match::NotCameBy(name) => {
            head[layout.inverted] |= INVERTED_CAME_BY;
            interface(head, interfaces, name)
        }
        Match::LeavesBy(name) => interface(head, interfaces + NAME_BYTES, name),
        Match::From(network) if length == 4 => {
            head[..4].copy_from_slice(&network.network().octets());
            head[8..12].copy_from_slice(&network.netmask().octets());
            Some(())
        }
        Match::To(network) if length == 4 => {
            head[4..8].copy_from_slice(&network.network().octets());
            head[12..16].copy_from_slice(&network.netmask().octets());
            Some(())
        }
        _ => None,
    }
}

/// Returns the name of an interface with its zero byte, and which bytes of it count.
fn interface(head: &mut [u8], at: usize, name: &str) -> Option<()> {
    let mask = at + 2 * NAME_BYTES;
    if name.len() >= NAME_BYTES {
        return None;
    }
    head[at..at + name.len()].copy_from_slice(name.as_bytes());
    head[mask..=mask + name.len()].fill(0xff);
    Some(())
}

const INVERTED_CAME_BY: u8 = 1;
/// Size in bytes of an interface's name. In an entry stand that of the way in and of the way out,
/// and then which bytes of both count.
const NAME_BYTES: usize = 16;
