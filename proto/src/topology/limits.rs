//! How much of what others tell is kept.

/// Maximum number of peers. Beyond it, only peers that connect to us are added.
pub const PEERS_MAX: usize = 8192;
/// Maximum number of connections in one entry. An entry with more is ignored.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4096;
/// Maximum length of a nickname in bytes. An entry with a longer one is ignored.
pub const NICKNAME_BYTES_MAX: usize = 1024;
/// Maximum length of an address text in bytes. An entry with a longer one is ignored.
pub const ADDRESS_BYTES_MAX: usize = 64;
/// By how much a version may be higher than the one that is known of its peer; what is higher still
/// is ignored. A peer that counts its changes never comes near, and the numbers do not run out
/// before their owner has outdone a lie about it.
pub const VERSION_STEP_MAX: u64 = 1 << 32;
/// Versions from here on are ignored.
pub const VERSION_END: u64 = 1 << 62;
/// Maximum memory for the lists and texts of all entries, in bytes: twice the need of a thousand
/// peers that are all connected to each other. An entry that does not fit is ignored, unless its
/// peer is connected to us.
pub const ENTRIES_BYTES_MAX: usize = 48 << 20;
