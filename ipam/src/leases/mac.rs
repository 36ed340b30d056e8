//! The MAC addresses of leases.

use proto::types::Mac;
use sha2::{Digest as _, Sha256};

use super::lease::LeaseKey;
use super::wire;
use crate::range::Address;

/// Returns the MAC address for an address of a lease. It is as unique as the address, and changes
/// when the address passes to another identity.
///
/// Rule: `docs/protocol/ipam.md#9-7-mac`.
pub fn mac(key: &LeaseKey, address: Address) -> Mac {
    let mut bytes = Vec::new();
    wire::put_key(&mut bytes, key);
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let [a, b, c, d] = address.get().to_be_bytes();
    Mac::from_bytes([(hash[0] & 0xfc) | 0x02, hash[1], a, b, c, d])
}
