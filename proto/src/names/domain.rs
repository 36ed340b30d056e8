//! DNS names in their two forms: text, and the labels that messages carry.
//!
//! ```text
//! text    Web.weave.local.
//! wire    3 'W' 'e' 'b'  5 'w' 'e' 'a' 'v' 'e'  5 'l' 'o' 'c' 'a' 'l'  0
//! ```
//!
//! Letters compare without case, so lookups use the wire form in lower case.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Maximum size of a name on the wire in bytes, length bytes included (RFC 1035 section 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;
/// Maximum size of a label in bytes (RFC 1035 section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Returns true if this is a fully qualified name that a DNS message can carry: labels of 1 to 63
/// visible ASCII characters, each followed by a dot, without escapes.
pub fn is_hostname(text: &str) -> bool {
    let Some(labels) = text.strip_suffix('.') else {
        return false;
    };
    text.len() < NAME_BYTES_MAX
        && labels
            .split('.')
            .all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len()))
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// Appends the wire form in lower case of a name for which [`is_hostname`] holds.
pub(super) fn push_wire(text: &str, out: &mut Vec<u8>) {
    for label in text.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    out.push(0);
}

/// Appends the wire form with letters as they are.
pub(super) fn wire_as_spelled(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 1);
    for label in text.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// A text that is not a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a domain like weave.local.")]
pub struct ParseDomainError;

/// The domain whose names are answered from the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    text: Arc<str>,
    wire: Arc<[u8]>,
}

impl Domain {
    /// Returns the domain in lower case, with its trailing dot.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the labels in lower case.
    pub(super) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Returns true if a fully qualified name is the domain or lies below it.
    pub fn contains(&self, hostname: &str) -> bool {
        let Some(start) = hostname.len().checked_sub(self.text.len()) else {
            return false;
        };
        hostname.is_char_boundary(start)
            && hostname[start..].eq_ignore_ascii_case(&self.text)
            && (start == 0 || hostname[..start].ends_with('.'))
    }

    /// Returns the full form of a name that a user gives: one that ends in a dot or in the domain
    /// is meant as it stands, any other is relative to the domain.
    pub fn qualify(&self, name: &str) -> String {
        if name.ends_with('.') {
            return name.to_owned();
        }
        let full = format!("{name}.");
        if self.contains(&full) {
            return full;
        }
        full + &self.text
    }

    /// Returns the name under which the identity of a lease is found: `IDENTITY.lease.DOMAIN`,
    /// letters in lower case, dots kept, anything else but digits and `_` as `-`. `None` if no name
    /// can be made of it.
    pub fn lease_hostname(&self, identity: &str) -> Option<String> {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '_' | '.') => c,
            _ => '-',
        };
        let labels: String = identity.chars().map(plain).collect();
        let hostname = format!("{labels}.lease.{}", self.text);
        is_hostname(&hostname).then_some(hostname)
    }

    /// Returns true if labels in lower case are the domain or lie below it.
    pub(super) fn contains_wire(&self, name: &[u8]) -> bool {
        let mut rest = name;
        while rest.len() > self.wire.len() {
            let Some(next) = rest.get(usize::from(rest[0]) + 1..) else {
                return false;
            };
            rest = next;
        }
        *rest == *self.wire
    }
}

impl FromStr for Domain {
    type Err = ParseDomainError;

    /// Reads a domain; its trailing dot may be left out.
    fn from_str(text: &str) -> Result<Domain, ParseDomainError> {
        let mut text = text.to_ascii_lowercase();
        if !text.ends_with('.') {
            text.push('.');
        }
        if !is_hostname(&text) {
            return Err(ParseDomainError);
        }
        let mut wire = Vec::with_capacity(text.len() + 1);
        push_wire(&text, &mut wire);
        Ok(Domain {
            text: text.into(),
            wire: wire.into(),
        })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_checked() {
        let long_label = format!("{}.", "a".repeat(64));
        assert!(is_hostname("a.weave.local."));
        assert!(is_hostname("_http._tcp.x-y.weave.local."));
        assert!(is_hostname(&"a.".repeat(127)));
        for bad in [
            "",
            ".",
            "a",
            "a..b.",
            ".a.",
            "a b.",
            "a\n.",
            "a\\.b.",
            "\u{e4}.",
            &long_label,
        ] {
            assert!(!is_hostname(bad), "{bad:?}");
        }
        assert!(!is_hostname(&"a.".repeat(128)));
    }

    #[test]
    fn names_are_qualified() {
        let domain: Domain = "weave.local".parse().unwrap();
        for (name, full) in [
            ("web", "web.weave.local."),
            ("web.prod", "web.prod.weave.local."),
            ("Web.Weave.Local", "Web.Weave.Local."),
            ("web.weave.local.", "web.weave.local."),
            ("web.example.com.", "web.example.com."),
            ("weave.local", "weave.local."),
        ] {
            assert_eq!(domain.qualify(name), full);
        }
    }

    #[test]
    fn a_domain_contains_itself_and_what_lies_below() {
        let domain: Domain = "Weave.Local".parse().unwrap();
        assert_eq!(domain.to_string(), "weave.local.");
        for (name, inside) in [
            ("weave.local.", true),
            ("A.WEAVE.local.", true),
            ("a.b.weave.local.", true),
            ("xweave.local.", false),
            ("weave.local.x.", false),
            ("local.", false),
        ] {
            assert_eq!(domain.contains(name), inside, "{name}");
            let mut wire = Vec::new();
            push_wire(name, &mut wire);
            assert_eq!(domain.contains_wire(&wire), inside, "{name}");
        }
        // The bytes of the domain inside a longer label are not the domain.
        assert!(!domain.contains_wire(b"\x0d\x05weave\x05local\0\0"));
        assert_eq!("a..b".parse::<Domain>(), Err(ParseDomainError));
    }
}
