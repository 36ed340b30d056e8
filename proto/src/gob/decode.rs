//! Decoding of the values of a stream, in place.

use super::error::{DEPTH_MAX, Error};
use super::id;
use super::primitive::{bytes, count, fields, int, length, uint};
use super::types::{Types, WireType};
use crate::cursor::Cursor;

/// Decodes the values of a complete stream.
///
/// Format: `docs/protocol/gob.md#2-messages`.
#[derive(Debug)]
pub struct Decoder<'a> {
    types: Types,
    input: Cursor<'a>,
    message: Cursor<'a>,
}

impl<'a> Decoder<'a> {
    /// Creates a decoder for a stream that starts at the front of `input`.
    pub fn new(input: &'a [u8]) -> Decoder<'a> {
        Decoder {
            types: Types::default(),
            input: Cursor::new(input),
            message: Cursor::new(&[]),
        }
    }

    /// Returns the next top-level value, or `None` at a clean end of the stream.
    ///
    /// Returns [`Error::Trailing`] if the previous value was not consumed completely, and
    /// [`Error::Missing`] if definitions are not followed by a value.
    ///
    /// Format: `docs/protocol/gob.md#2-messages`.
    pub fn next_value(&mut self) -> Result<Option<Value<'_, 'a>>, Error> {
        let mut after_definition = false;
        loop {
            if !self.message.is_empty() {
                return Err(Error::Trailing(self.message.len()));
            }
            if self.input.is_empty() {
                return if after_definition {
                    Err(Error::Missing)
                } else {
                    Ok(None)
                };
            }
            let len = length(&mut self.input)?;
            self.message = Cursor::new(self.input.take(len)?);
            if let Some(type_id) = self.types.header(&mut self.message)? {
                return Ok(Some(Value {
                    types: &self.types,
                    type_id,
                    input: &mut self.message,
                    depth: 0,
                }));
            }
            after_definition = true;
        }
    }

    /// Returns the next top-level value, or an error at the end of the stream.
    ///
    /// Format: `docs/protocol/gob.md#2-messages`.
    pub fn value(&mut self) -> Result<Value<'_, 'a>, Error> {
        self.next_value()?.ok_or(Error::Missing)
    }
}

/// Finds the first message of a stream that arrives in pieces.
///
/// Returns the start and end of its body, or `None` while it is incomplete.
///
/// Format: `docs/protocol/gob.md#2-messages`.
pub fn split_message(input: &[u8], limit: usize) -> Result<Option<(usize, usize)>, Error> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let header = if first < 0x80 {
        1
    } else {
        1 + usize::from(first.wrapping_neg())
    };
    if header > 9 {
        return Err(Error::Range);
    }
    let Some(prefix) = input.get(..header) else {
        return Ok(None);
    };
    let len = uint(&mut Cursor::new(prefix))?;
    let fits = usize::try_from(len).ok().filter(|len| *len <= limit);
    let Some(len) = fits else {
        return Err(Error::TooLong { len, limit });
    };
    Ok((input.len() - header >= len).then_some((header, header + len)))
}

impl Types {
    /// Decodes the body of one message of a long-lived stream with `read`. Returns `None` if the
    /// message was a definition.
    ///
    /// Format: `docs/protocol/gob.md#2-messages`.
    pub fn message<'a, T>(
        &mut self,
        body: &'a [u8],
        read: impl FnOnce(Value<'_, 'a>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut input = Cursor::new(body);
        let Some(type_id) = self.header(&mut input)? else {
            return Ok(None);
        };
        let out = read(Value {
            types: self,
            type_id,
            input: &mut input,
            depth: 0,
        })?;
        if input.is_empty() {
            Ok(Some(out))
        } else {
            Err(Error::Trailing(input.len()))
        }
    }
}

/// A value to be read. Each method consumes it together with its input.
#[derive(Debug)]
#[must_use = "a value that is not read stays in the input"]
pub struct Value<'r, 'a> {
    types: &'r Types,
    type_id: i64,
    input: &'r mut Cursor<'a>,
    depth: u8,
}

impl<'a> Value<'_, 'a> {
    fn expect(&self, type_id: i64, expected: &'static str) -> Result<(), Error> {
        if self.type_id == type_id {
            Ok(())
        } else {
            Err(Error::Kind {
                expected,
                got: self.type_id,
            })
        }
    }

    fn kind(&self, expected: &'static str) -> Error {
        Error::Kind {
            expected,
            got: self.type_id,
        }
    }

    /// Reads a boolean. Every number except zero is true, as in Go.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn bool(self) -> Result<bool, Error> {
        self.expect(id::BOOL, "bool")?;
        Ok(uint(self.input)? != 0)
    }

    /// Reads a signed number.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn int(self) -> Result<i64, Error> {
        self.expect(id::INT, "int")?;
        int(self.input)
    }

    /// Reads an unsigned number.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn uint(self) -> Result<u64, Error> {
        self.expect(id::UINT, "uint")?;
        uint(self.input)
    }

    /// Reads an unsigned number that must fit 32 bits.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn uint32(self) -> Result<u32, Error> {
        u32::try_from(self.uint()?).map_err(|_| Error::Range)
    }

    /// Reads an unsigned number that must fit 16 bits.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn uint16(self) -> Result<u16, Error> {
        u16::try_from(self.uint()?).map_err(|_| Error::Range)
    }

    /// Returns a byte string.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn bytes(self) -> Result<&'a [u8], Error> {
        self.expect(id::BYTES, "bytes")?;
        bytes(self.input)
    }

    /// Reads a text as bytes, because Go does not check that it is UTF-8.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn string(self) -> Result<&'a [u8], Error> {
        self.expect(id::STRING, "string")?;
        bytes(self.input)
    }

    /// Reads a text. Bytes that are not UTF-8 are replaced.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn text(self) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(self.string()?).into_owned())
    }

    /// Reads a slice: calls `each` for every element. Returns the number of elements.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn slice(
        self,
        mut each: impl FnMut(Value<'_, 'a>) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let Some(WireType::Slice { elem }) = self.types.defined.get(&self.type_id) else {
            return Err(self.kind("slice"));
        };
        let depth = deeper(self.depth)?;
        let count = count(self.input)?;
        for _ in 0..count {
            each(Value {
                types: self.types,
                type_id: *elem,
                input: self.input,
                depth,
            })?;
        }
        Ok(count)
    }

    /// Reads a map: reads every key with `key`, then its element with `each`. Returns the number of
    /// keys.
    ///
    /// Format: `docs/protocol/gob.md#1-primitives`.
    pub fn map<K>(
        self,
        mut key: impl FnMut(Value<'_, 'a>) -> Result<K, Error>,
        mut each: impl FnMut(K, Value<'_, 'a>) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let Some(WireType::Map { key: key_id, elem }) = self.types.defined.get(&self.type_id)
        else {
            return Err(self.kind("map"));
        };
        let (depth, types) = (deeper(self.depth)?, self.types);
        let count = count(self.input)?;
        for _ in 0..count {
            let k = key(Value {
                types,
                type_id: *key_id,
                input: self.input,
                depth,
            })?;
            each(
                k,
                Value {
                    types,
                    type_id: *elem,
                    input: self.input,
                    depth,
                },
            )?;
        }
        Ok(count)
    }

    /// Reads a struct: calls `each` with the position of a field's name in `known`, for those
    /// fields that were sent and are known. Other fields are skipped.
    ///
    /// A top-level struct that has fields but none of the known ones is refused, as in Go.
    ///
    /// Format: `docs/protocol/gob.md#3-structs`.
    pub fn structure(
        self,
        known: &[&str],
        mut each: impl FnMut(usize, Value<'_, 'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(WireType::Struct(defined)) = self.types.defined.get(&self.type_id) else {
            return Err(self.kind("struct"));
        };
        let index = |name: &[u8]| known.iter().position(|k| k.as_bytes() == name);
        let common = || known.iter().any(|name| defined.has(name));
        if self.depth == 0 && !known.is_empty() && !defined.fields.is_empty() && !common() {
            return Err(Error::NoCommonField);
        }
        let (depth, types) = (deeper(self.depth)?, self.types);
        fields(self.input, |number, input| {
            let field = defined.fields.get(number).ok_or(Error::Field)?;
            let value = Value {
                types,
                type_id: field.id,
                input,
                depth,
            };
            match index(&field.name) {
                Some(position) => each(position, value),
                None => value.skip(),
            }
        })
    }

    /// Returns the undecoded bytes from this value to the end of its message. A receiver that has
    /// seen the same bytes in the same place before need not decode them again.
    pub fn rest(&self) -> &'a [u8] {
        self.input.rest()
    }

    /// Skips a top-level value and the rest of its message without decoding it, at no cost. Inside
    /// another value this is [`Value::skip`].
    pub fn discard(self) -> Result<(), Error> {
        if self.depth != 0 {
            return self.skip();
        }
        *self.input = Cursor::new(&[]);
        Ok(())
    }

    /// Skips a value of any type.
    ///
    /// Rule: `docs/protocol/gob.md#6-decoding`.
    pub fn skip(self) -> Result<(), Error> {
        match self.type_id {
            id::BOOL | id::INT | id::UINT | id::FLOAT => uint(self.input).map(drop),
            id::COMPLEX => {
                uint(self.input)?;
                uint(self.input).map(drop)
            }
            id::INTERFACE => Err(Error::Unsupported(self.type_id)),
            id::BYTES | id::STRING => bytes(self.input).map(drop),
            _ => match self.types.defined.get(&self.type_id) {
                None => Err(Error::UndefinedType(self.type_id)),
                Some(WireType::Opaque) => bytes(self.input).map(drop),
                Some(WireType::Slice { .. }) => self.slice(|elem| elem.skip()).map(drop),
                Some(WireType::Map { .. }) => {
                    self.map(|key| key.skip(), |(), elem| elem.skip()).map(drop)
                }
                Some(WireType::Struct(_)) => self.structure(&[], |_, value| value.skip()),
            },
        }
    }
}

fn deeper(depth: u8) -> Result<u8, Error> {
    if depth < DEPTH_MAX {
        Ok(depth + 1)
    } else {
        Err(Error::Depth)
    }
}
