//! Whether two peers know the same of the mesh, in a few bytes.

use sha2::{Digest as _, Sha256};

use super::table::Topology;

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 16;

/// What a peer knows of the mesh, hashed. Two that are equal know the same, and one that differs
/// knows something that the other does not, or both do.
///
/// No sum, since who may invent entries could make another's change cancel out.
pub type Digest = [u8; DIGEST_BYTES];

impl Topology {
    /// The digest of all entries: of each what decides whether it replaces another. Peers of which
    /// only the name is known are left out.
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
