//! What the two ends of a native link say to each other over the mesh connection.

/// A control message between the two ends of a native link. Travels over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// 1: let us agree on keys; the content is a [`Hello`](crate::native::keys::Hello).
    Hello(Vec<u8>),
    /// 2: it is for you, who dialled, to begin another epoch; please do.
    RekeyPlease,
}

/// A control message that is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No message has this tag.
    #[error("unknown control message {0} of the native overlay")]
    UnknownTag(u8),
    /// The content is none.
    #[error("malformed hello of {0} bytes")]
    Malformed(usize),
    /// The keys before are too young to be replaced.
    #[error("hello too soon after the one before")]
    Hasty,
    /// It is not the turn of this epoch.
    #[error("hello for epoch {got}, {wanted} wanted")]
    Epoch {
        /// The epoch in the message.
        got: u32,
        /// The one that is next.
        wanted: u32,
    },
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
