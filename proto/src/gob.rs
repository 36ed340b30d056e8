//! gob, the serialisation of every structured payload of the mesh.
//!
//! A stream is a sequence of messages, `uint length | body`. A body is either the definition of
//! a type (a negative id) or a value of a type that was defined before (a positive one):
//!
//! ```text
//! 25 | ffa1 | wireType ...        definition of type 81: struct Range{Start uint; End uint}
//! 0f | ffa2 | 01 fc 0a200000 ...  value of type 81
//! ```
//!
//! Ids and names of types differ from sender to sender, so only field names and kinds are
//! matched. [`Decoder`] walks values without building a tree, [`Encoder`] writes what Go's
//! encoder would, given the same ids.

mod decode;
mod encode;
mod primitive;
#[cfg(test)]
mod tests;
mod types;

pub use decode::{Decoder, Value, split_message};
pub use encode::{Encoder, MapType, SliceType, StructType, StructWriter, Type, Writer};
pub use types::Types;

use crate::cursor::EndOfInput;

/// Ids of the predefined types.
pub(crate) mod id {
    pub(crate) const BOOL: i64 = 1;
    pub(crate) const INT: i64 = 2;
    pub(crate) const UINT: i64 = 3;
    pub(crate) const FLOAT: i64 = 4;
    pub(crate) const BYTES: i64 = 5;
    pub(crate) const STRING: i64 = 6;
    pub(crate) const COMPLEX: i64 = 7;
    pub(crate) const INTERFACE: i64 = 8;
    /// Definitions below this id are refused, as Go does.
    pub(crate) const FIRST_USER: i64 = 64;
}

/// Why a stream could not be decoded. The sender's fault, always.
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
    /// A definition that is not allowed: of a reserved id, of one defined before, of no kind of
    /// type, with an overlong field name, or one type or field more than a stream may have.
    #[error("bad definition of type {0}")]
    BadDefinition(i64),
    /// A value of another kind than expected.
    #[error("expected {expected}, got type {got}")]
    Kind {
        /// What the receiver expects here.
        expected: &'static str,
        /// The sender's type id.
        got: i64,
    },
    /// A struct without any field that the receiver knows.
    #[error("struct has no field in common with the one expected")]
    NoCommonField,
    /// A field number beyond the struct's definition, or numbers that do not grow.
    #[error("bad field number")]
    Field,
    /// A value that cannot even be skipped: an interface. It never occurs here.
    #[error("unsupported kind of type {0}")]
    Unsupported(i64),
    /// Types are nested too deeply.
    #[error("values nested deeper than {limit}", limit = decode::DEPTH_MAX)]
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
    /// A value decoded well but breaks a rule of the protocol.
    #[error("invalid {0}")]
    Invalid(&'static str),
}
