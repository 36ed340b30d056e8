//! Who a host is: the name of its peer, given by an operator or made from the ids of its system.
//!
//! ```text
//! ids  = content of machine-id | content of product_uuid        as read, with their newlines
//! name = first 6 bytes of SHA-256("9oBJ0Jmip-" | ids), as a locally administered unicast MAC
//! ```

use sha2::{Digest, Sha256};

use crate::types::PeerName;

/// A text that is not a peer name. The message is Weave Net's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid peer name format: {0:?}")]
pub struct InvalidPeerName(pub String);

/// Parses a peer name from an operator or from another peer.
///
/// Format: `docs/protocol/mesh.md#1-1-peer-names`.
pub fn parse_peer_name(text: &str) -> Result<PeerName, InvalidPeerName> {
    text.parse()
        .map_err(|_| InvalidPeerName(text.chars().take(QUOTE_CHARS_MAX).collect()))
}

/// Ids of the system. Each field is the content of a file as it was read, or `None` if there is no
/// such file. A file that exists but cannot be read is an error of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemIds {
    /// `/etc/machine-id` of the host.
    pub machine_id: Option<Vec<u8>>,
    /// `/var/lib/dbus/machine-id` of the host, used if the former is missing.
    pub dbus_machine_id: Option<Vec<u8>>,
    /// `/sys/class/dmi/id/product_uuid`.
    pub product_uuid: Option<Vec<u8>>,
    /// `/sys/hypervisor/uuid`, used if the former is missing.
    pub hypervisor_uuid: Option<Vec<u8>>,
}

/// The system has no id from which a name could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all system ids are blank")]
pub struct NoSystemIds;

impl SystemIds {
    /// Returns the peer name derived from these ids.
    ///
    /// Rule: `docs/protocol/mesh.md#1-3-names-from-system-ids`.
    pub fn peer_name(&self) -> Result<PeerName, NoSystemIds> {
        let machine = self.machine_id.as_ref().or(self.dbus_machine_id.as_ref());
        let ids = [
            machine.map_or(&[][..], Vec::as_slice),
            self.hardware().unwrap_or_default(),
        ];
        if ids.iter().all(|id| id.is_empty()) {
            return Err(NoSystemIds);
        }
        Ok(name_from_ids(&ids.concat()))
    }

    fn hardware(&self) -> Option<&[u8]> {
        self.product_uuid
            .as_deref()
            .or(self.hypervisor_uuid.as_deref())
    }
}

/// Derives a peer name from the concatenated ids of a system.
///
/// Rule: `docs/protocol/mesh.md#1-3-names-from-system-ids`.
pub fn name_from_ids(ids: &[u8]) -> PeerName {
    let mut hash = Sha256::new();
    hash.update(SALT);
    hash.update(ids);
    let [first, a, b, c, d, e, ..] = <[u8; 32]>::from(hash.finalize());
    // The bits of a MAC address that say "unicast" and "not from a vendor".
    PeerName::from_bytes([first & 0xfe | 0x02, a, b, c, d, e])
}

const SALT: &[u8] = b"9oBJ0Jmip-";
/// Maximum number of characters of an invalid name that an error message repeats.
const QUOTE_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{list, load, text};

    #[test]
    fn names_are_read_as_weave_net_reads_them() {
        let vectors = load("peernames.json");
        let cases = list(&vectors, "parse");
        assert_eq!(cases.len(), 26);
        for case in cases {
            let input = text(case, "input");
            let got = parse_peer_name(input);
            if let Some(error) = case["error"].as_str() {
                assert_eq!(got.unwrap_err().to_string(), error);
                continue;
            }
            let name = got.unwrap();
            assert_eq!(name.to_string(), text(case, "canonical"));
            assert_eq!(name.as_u64().to_string(), text(case, "value"));
            assert_eq!(PeerName::from_u64(name.as_u64()), Some(name));
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn names_are_made_from_system_ids() {
        let vectors = load("peernames.json");
        let cases = list(&vectors, "mac_from_system_ids");
        assert_eq!(cases.len(), 4);
        for case in cases {
            let ids = text(case, "input_text");
            let name = name_from_ids(ids.as_bytes());
            assert_eq!(name.to_string(), text(case, "mac"));
        }
    }

    #[test]
    fn each_id_has_a_substitute_only_where_its_file_is_missing() {
        let id = |text: &str| Some(text.as_bytes().to_vec());
        let mut ids = SystemIds::default();
        assert_eq!(ids.peer_name(), Err(NoSystemIds));

        ids.dbus_machine_id = id("dbus\n");
        assert_eq!(ids.peer_name(), Ok(name_from_ids(b"dbus\n")));
        ids.machine_id = id("etc\n");
        ids.hypervisor_uuid = id("xen\n");
        assert_eq!(ids.peer_name(), Ok(name_from_ids(b"etc\nxen\n")));
        ids.product_uuid = id("dmi\n");
        assert_eq!(ids.peer_name(), Ok(name_from_ids(b"etc\ndmi\n")));

        ids.machine_id = id("");
        assert_eq!(ids.peer_name(), Ok(name_from_ids(b"dmi\n")));
        ids.product_uuid = id("");
        assert_eq!(ids.peer_name(), Err(NoSystemIds));
    }
}
