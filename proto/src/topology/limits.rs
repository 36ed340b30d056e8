//! How much of what others tell is kept.

/// Most peers that are kept. Beyond it, peers are taken in only when they connect to us.
pub const PEERS_MAX: usize = 8192;
/// Most connections in one entry. An entry with more is ignored.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4096;
/// Longest nickname, in bytes. An entry with a longer one is ignored.
pub const NICKNAME_BYTES_MAX: usize = 1024;
/// Longest text of an address, in bytes. An entry with a longer one is ignored.
pub const ADDRESS_BYTES_MAX: usize = 64;
/// By how much a version may be higher than the one that is known of its peer; what is higher still
/// is ignored. A peer that counts its changes never comes near, and the numbers do not run out
/// before their owner has outdone a lie about it.
pub const VERSION_STEP_MAX: u64 = 1 << 32;
/// Versions from here on are ignored.
pub const VERSION_END: u64 = 1 << 62;
/// Memory for the lists and texts of all entries, in bytes: enough for a thousand peers that are
/// all connected to each other, twice. An entry that does not fit is ignored, unless it is of a
/// peer that is connected to us.
pub const ENTRIES_BYTES_MAX: usize = 48 << 20;
