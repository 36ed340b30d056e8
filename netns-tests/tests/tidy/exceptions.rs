//! Where the rules do not hold yet: lines of a rule, a path and a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::rules::Violation;
use crate::tree::root;

/// The exceptions as they are written down.
pub(crate) struct Exceptions {
    /// Reasons by rule and path.
    listed: BTreeMap<(String, String), String>,
}

const HEAD: &str = "\
# Where the rules do not hold: `rule path reason`. One that is not needed fails the test, so the list
# can only shrink by being mended. `WEFT_WRITE_EXCEPTIONS=1 cargo test -p netns-tests --test tidy`
# writes it anew; what that adds needs a reason.
";

fn path() -> PathBuf {
    root().join("netns-tests/tests/tidy/exceptions.txt")
}

impl Exceptions {
    pub(crate) fn read() -> Exceptions {
        Exceptions::parse(&fs::read_to_string(path()).unwrap_or_default())
    }

    pub(crate) fn parse(text: &str) -> Exceptions {
        let mut listed = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().unwrap_or_default().to_owned();
            let (rule, path, reason) = (part(), part(), part());
            assert!(!reason.is_empty(), "an exception without a reason: {line}");
            let twice = listed.insert((rule, path), reason);
            assert!(twice.is_none(), "an exception twice: {line}");
        }
        Exceptions { listed }
    }

    /// Returns what was found and is no exception, and exceptions that are not needed.
    pub(crate) fn compare(&self, found: &[Violation]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut used = BTreeSet::new();
        for violation in found {
            let Violation {
                rule,
                path,
                line,
                what,
            } = violation;
            let key = ((*rule).to_owned(), path.clone());
            match self.listed.contains_key(&key) {
                true => _ = used.insert(key),
                false => complaints.push(format!("{path}:{line}: {rule}: {what}")),
            }
        }
        for (rule, path) in self.listed.keys().filter(|key| !used.contains(*key)) {
            let text = format!("{path}: the exception from {rule} is not needed, take it out");
            complaints.push(text);
        }
        complaints
    }

    /// Writes those that are needed.
    pub(crate) fn write_for(&self, found: &[Violation]) {
        let needed = found.iter().map(|v| (v.rule.to_owned(), v.path.clone()));
        let needed: BTreeSet<(String, String)> = needed.collect();
        let mut text = HEAD.to_owned();
        for key in &needed {
            let reason = self
                .listed
                .get(key)
                .map_or("from before the rule", String::as_str);
            text.push_str(&format!("{} {} {reason}\n", key.0, key.1));
        }
        fs::write(path(), text).unwrap();
    }
}
