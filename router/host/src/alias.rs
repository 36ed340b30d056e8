//! How devices that we made are told from devices of others.

/// What the alias of each device that we made starts with.
pub const ALIAS: &str = "weft";

/// Whether this alias says that we made the device.
pub fn is_ours(alias: Option<&str>) -> bool {
    alias.is_some_and(|alias| alias == ALIAS || alias.starts_with("weft "))
}
