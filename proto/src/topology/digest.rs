//! Digests of the topology, by which two peers compare what they know.

use sha2::{Digest as _, Sha256};

use super::table::Topology;

/// Size of a digest in bytes.
pub const DIGEST_BYTES: usize = 16;

/// A hash of what a peer knows of the mesh. Peers with equal digests know the same; if digests
/// differ, at least one of them knows something that the other does not.
///
/// It is a hash and no sum, since whoever can invent entries could make another's change cancel
/// out.
///
/// Format: `docs/protocol/mesh.md#10-1-digests`.
pub type Digest = [u8; DIGEST_BYTES];

impl Topology {
    /// Returns the digest of all entries: of each the fields that decide whether it replaces
    /// another. Peers of which only the name is known are left out.
    ///
    /// Format: `docs/protocol/mesh.md#10-1-digests`.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        for header in self.peers().map(super::update::Peer::header) {
            if header.version > 0 {
                hash.update(header.name.as_bytes());
                hash.update(header.uid.0.to_be_bytes());
                hash.update(header.version.to_be_bytes());
                hash.update([u8::from(header.has_short_id)]);
            }
        }
        let mut digest = [0; DIGEST_BYTES];
        let hash = hash.finalize();
        digest.copy_from_slice(&hash[..DIGEST_BYTES]);
        digest
    }
}
