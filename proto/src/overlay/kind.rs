//! Which overlays there are.

/// An overlay that this router supports.
///
/// Rule: `docs/protocol/sleeve.md#1-4-kinds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overlay {
    /// weft's own UDP encapsulation, always encrypted.
    Weft,
    /// Weave Net's UDP encapsulation.
    Sleeve,
}

impl Overlay {
    /// All overlays, the preferred one first.
    pub const ALL: [Overlay; 2] = [Overlay::Weft, Overlay::Sleeve];

    /// Returns the name under which it is offered.
    pub const fn name(self) -> &'static str {
        match self {
            Overlay::Weft => "weft",
            Overlay::Sleeve => "sleeve",
        }
    }

    /// Creates the overlay of this name.
    pub fn from_name(name: &str) -> Option<Overlay> {
        Overlay::ALL
            .into_iter()
            .find(|overlay| overlay.name() == name)
    }
}
