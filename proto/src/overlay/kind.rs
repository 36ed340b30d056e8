//! Which overlays there are.

/// An overlay that this build can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overlay {
    /// Our own UDP encapsulation, always sealed.
    Weft,
    /// Weave's UDP encapsulation.
    Sleeve,
}

impl Overlay {
    /// All of them, the best first.
    pub const ALL: [Overlay; 2] = [Overlay::Weft, Overlay::Sleeve];

    /// The name under which it is offered.
    pub const fn name(self) -> &'static str {
        match self {
            Overlay::Weft => "weft",
            Overlay::Sleeve => "sleeve",
        }
    }

    /// The overlay of this name.
    pub fn from_name(name: &str) -> Option<Overlay> {
        Overlay::ALL
            .into_iter()
            .find(|overlay| overlay.name() == name)
    }
}
