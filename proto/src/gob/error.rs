//! Why a stream could not be decoded.

use crate::cursor::EndOfInput;

/// Maximum nesting of values. Deeper input is refused.
pub(super) const DEPTH_MAX: u8 = 32;

/// Why a stream could not be decoded. The sender is always responsible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stream ends inside an item.
    #[error(transparent)]
    EndOfInput(#[from] EndOfInput),
    /// A number is longer than eight bytes or does not fit where it stands.
    #[error("number out of range")]
    Range,
    /// A count or length exceeds what the rest of the input can hold.
    #[error("{count} elements announced, but only {left} bytes are left")]
    Count {
        /// The announced count.
        count: u64,
        /// Bytes left in the message.
        left: usize,
    },
    /// A type id that was never defined.
    #[error("undefined type {0}")]
    UndefinedType(i64),
    /// An invalid definition: of a reserved id, of an id defined before, of an unknown kind of
    /// type, with an overlong field name, or beyond the maximum number of types or fields.
    #[error("bad definition of type {0}")]
    BadDefinition(i64),
    /// A value has another kind than expected.
    #[error("expected {expected}, got type {got}")]
    Kind {
        /// The kind that the receiver expects.
        expected: &'static str,
        /// The sender's type id.
        got: i64,
    },
    /// A struct has no field that the receiver knows.
    #[error("struct has no field in common with the one expected")]
    NoCommonField,
    /// A field number is beyond the struct's definition, or numbers do not increase.
    #[error("bad field number")]
    Field,
    /// A value that cannot be skipped: an interface. It never occurs in the mesh.
    #[error("unsupported kind of type {0}")]
    Unsupported(i64),
    /// Types are nested too deeply.
    #[error("values nested deeper than {limit}", limit = DEPTH_MAX)]
    Depth,
    /// Bytes are left in a message after its value.
    #[error("{0} bytes left after the value of a message")]
    Trailing(usize),
    /// The stream ends where a value was expected.
    #[error("value missing")]
    Missing,
    /// The message is longer than its limit.
    #[error("message of {len} bytes exceeds the limit of {limit}")]
    TooLong {
        /// The announced length.
        len: u64,
        /// The limit.
        limit: usize,
    },
    /// A value is well-formed but violates the protocol.
    #[error("invalid {0}")]
    Invalid(&'static str),
}
