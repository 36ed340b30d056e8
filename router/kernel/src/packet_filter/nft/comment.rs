//! What stands beside a rule in listings, and tells us our rules.

use crate::netlink::wire::text;
use crate::packet_filter::rules::COMMENT_BYTES_MAX;

/// Returns the comment in the form in which `nft` keeps it: type 0, length, text with a zero byte.
pub(super) fn comment(comment: &str) -> Option<Vec<u8>> {
    if comment.is_empty() {
        return None;
    }
    let comment = cut(comment);
    let mut out = vec![UDATA_COMMENT, comment.len() as u8 + 1];
    out.extend_from_slice(comment.as_bytes());
    out.push(0);
    Some(out)
}

pub(super) fn comment_of(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text(value));
        }
        userdata = rest;
    }
    None
}

pub(super) fn cut(comment: &str) -> &str {
    let mut end = comment.len().min(COMMENT_BYTES_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}

const UDATA_COMMENT: u8 = 0;
