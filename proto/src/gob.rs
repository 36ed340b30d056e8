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
//! Ids and names of types differ between senders, so only field names and kinds are matched.
//! [`Decoder`] reads values without building a tree. [`Encoder`] writes what Go's encoder would
//! write, given the same ids.

mod decode;
mod encode;
mod error;
mod id;
mod primitive;
#[cfg(test)]
mod tests;
mod types;

pub use decode::{Decoder, Value, split_message};
pub use encode::{Encoder, MapType, SliceType, StructType, StructWriter, Type, Writer};
pub use error::Error;
pub use types::Types;
