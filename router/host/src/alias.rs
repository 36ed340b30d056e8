//! Marks that tell devices made by weft from other devices.

/// Prefix of the alias of each device that weft made.
pub const ALIAS: &str = "weft";

/// Returns true if this alias says that we made the device.
pub fn is_ours(alias: Option<&str>) -> bool {
    alias.is_some_and(|alias| alias == ALIAS || alias.starts_with("weft "))
}
