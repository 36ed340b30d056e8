//! The record of what is exposed.

use std::collections::BTreeMap;

use boundary::records::Record;
use host::gateway::{Exposed, Exposures};

/// The record's key.
pub(super) const EXPOSED_KEY: &[u8] = b"exposed";

/// Returns what was exposed in an earlier run; `None` if none has noted it.
pub(super) fn stored_exposures(records: &[Record]) -> Option<Vec<Exposed>> {
    let (_, value) = records.iter().find(|(key, _)| key == EXPOSED_KEY)?;
    let masquerades: BTreeMap<String, bool> = serde_json::from_slice(value).ok()?;
    let read = masquerades.into_iter().map(|(address, masquerade)| {
        let address = address.parse().ok()?;
        Some(Exposed {
            address,
            masquerade,
        })
    });
    read.collect()
}

/// Returns the record: each address, and whether its subnet is masqueraded.
pub(super) fn record(exposures: &Exposures) -> Vec<u8> {
    let all = exposures.all.iter();
    let masquerades: BTreeMap<String, bool> = all
        .map(|one| (one.address.to_string(), one.masquerade))
        .collect();
    // Writing JSON to memory cannot fail.
    serde_json::to_vec(&masquerades).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let one = |address: &str, masquerade| Exposed {
            address: address.parse().unwrap(),
            masquerade,
        };
        let exposures = Exposures {
            revision: 3,
            all: vec![one("10.7.0.1/16", true), one("10.8.0.1/24", false)],
        };
        let noted = vec![(EXPOSED_KEY.to_vec(), record(&exposures))];
        assert_eq!(stored_exposures(&noted), Some(exposures.all));
        assert_eq!(stored_exposures(&[]), None);
        let nothing = vec![(EXPOSED_KEY.to_vec(), record(&Exposures::default()))];
        assert_eq!(stored_exposures(&nothing), Some(Vec::new()));
        let broken = vec![(EXPOSED_KEY.to_vec(), b"[]".to_vec())];
        assert_eq!(stored_exposures(&broken), None);
    }
}
