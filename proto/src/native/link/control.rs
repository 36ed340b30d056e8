//! What the two ends of a native link say to each other over the mesh connection.

use crate::native::session_config::ControlError;

/// A control message between the two ends of a native link. Travels over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// 1: let us agree on keys; the content is a [`Hello`](crate::native::keys::Hello).
    Hello(Vec<u8>),
    /// 2: it is for you, who dialled, to begin another epoch; please do.
    RekeyPlease,
}

impl Control {
    /// The message with this tag and content.
    pub fn decode(tag: u8, content: &[u8]) -> Result<Control, ControlError> {
        match tag {
            1 => Ok(Control::Hello(content.to_vec())),
            2 => Ok(Control::RekeyPlease),
            _ => Err(ControlError::UnknownTag(tag)),
        }
    }

    /// The message's tag.
    pub const fn tag(&self) -> u8 {
        match self {
            Control::Hello(_) => 1,
            Control::RekeyPlease => 2,
        }
    }

    /// The message's content.
    pub fn content(&self) -> &[u8] {
        match self {
            Control::Hello(content) => content,
            Control::RekeyPlease => &[],
        }
    }
}
