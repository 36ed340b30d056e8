//! Walking the values of a stream, in place.

use std::collections::BTreeMap;

use super::{Error, id};
use crate::cursor::Cursor;

/// Deepest nesting of values; deeper input is refused.
pub(super) const DEPTH_MAX: u8 = 32;
/// Most types that one stream may define; more are refused.
const TYPES_MAX: usize = 256;

/// The types that a stream has defined so far.
#[derive(Debug, Default)]
pub struct Types {
    defined: BTreeMap<i64, WireType>,
}

#[derive(Debug)]
enum WireType {
    Slice { elem: i64 },
    Map { key: i64, elem: i64 },
    Struct { fields: Vec<Field> },
    Unsupported,
}

#[derive(Debug)]
struct Field {
    name: Vec<u8>,
    id: i64,
}

/// Decodes the values of a complete stream.
#[derive(Debug)]
pub struct Decoder<'a> {
    types: Types,
    input: Cursor<'a>,
    message: Cursor<'a>,
}

impl<'a> Decoder<'a> {
    /// A decoder for a stream that starts at the front of `input`.
    pub fn new(input: &'a [u8]) -> Decoder<'a> {
        Decoder {
            types: Types::default(),
            input: Cursor::new(input),
            message: Cursor::new(&[]),
        }
    }

    /// The next top-level value, or `None` at a clean end of the stream.
    ///
    /// The value before must have been consumed whole, else this is an [`Error::Trailing`].
    pub fn next_value(&mut self) -> Result<Option<Value<'_, 'a>>, Error> {
        loop {
            if !self.message.is_empty() {
                return Err(Error::Trailing(self.message.len()));
            }
            if self.input.is_empty() {
                return Ok(None);
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
        }
    }

    /// The next top-level value; an error at the end of the stream.
    pub fn value(&mut self) -> Result<Value<'_, 'a>, Error> {
        self.next_value()?.ok_or(Error::Missing)
    }
}

/// Finds the first message of a stream that arrives in pieces.
///
/// Returns where its body starts and ends, or `None` while bytes are missing.
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
    /// Decodes the body of one message of a long-lived stream with `read`; `None` if the
    /// message was a definition.
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

    /// Reads the id of a message. A definition is taken in and gives `None`.
    fn header(&mut self, message: &mut Cursor<'_>) -> Result<Option<i64>, Error> {
        let type_id = int(message)?;
        if type_id < 0 {
            let type_id = type_id.checked_neg().ok_or(Error::Range)?;
            self.define(type_id, message)?;
            return Ok(None);
        }
        let is_struct = matches!(self.defined.get(&type_id), Some(WireType::Struct { .. }));
        if !is_struct && message.u8()? != 0 {
            return Err(Error::Field);
        }
        Ok(Some(type_id))
    }

    fn define(&mut self, type_id: i64, message: &mut Cursor<'_>) -> Result<(), Error> {
        let taken = type_id < id::FIRST_USER || self.defined.contains_key(&type_id);
        if taken || self.defined.len() >= TYPES_MAX {
            return Err(Error::BadDefinition(type_id));
        }
        let mut wire = None;
        fields(message, |field, message| {
            wire = Some(match field {
                1 => read_slice(message)?,
                2 => read_struct(message)?,
                3 => read_map(message)?,
                _ => return Err(Error::Unsupported(type_id)),
            });
            Ok(())
        })?;
        if !message.is_empty() {
            return Err(Error::Trailing(message.len()));
        }
        self.defined
            .insert(type_id, wire.unwrap_or(WireType::Unsupported));
        Ok(())
    }
}

fn read_slice(message: &mut Cursor<'_>) -> Result<WireType, Error> {
    let mut elem = 0;
    fields(message, |field, message| match field {
        0 => common(message),
        1 => int(message).map(|id| elem = id),
        _ => Err(Error::Field),
    })?;
    Ok(WireType::Slice { elem })
}

fn read_map(message: &mut Cursor<'_>) -> Result<WireType, Error> {
    let (mut key, mut elem) = (0, 0);
    fields(message, |field, message| match field {
        0 => common(message),
        1 => int(message).map(|id| key = id),
        2 => int(message).map(|id| elem = id),
        _ => Err(Error::Field),
    })?;
    Ok(WireType::Map { key, elem })
}

fn read_struct(message: &mut Cursor<'_>) -> Result<WireType, Error> {
    let mut out = Vec::new();
    fields(message, |field, message| match field {
        0 => common(message),
        1 => {
            for _ in 0..count(message)? {
                out.push(read_field(message)?);
            }
            Ok(())
        }
        _ => Err(Error::Field),
    })?;
    Ok(WireType::Struct { fields: out })
}

fn read_field(message: &mut Cursor<'_>) -> Result<Field, Error> {
    let mut out = Field {
        name: Vec::new(),
        id: 0,
    };
    fields(message, |field, message| match field {
        0 => bytes(message).map(|name| out.name = name.to_vec()),
        1 => int(message).map(|id| out.id = id),
        _ => Err(Error::Field),
    })?;
    Ok(out)
}

/// The name and id that every definition repeats; they carry no meaning here.
fn common(message: &mut Cursor<'_>) -> Result<(), Error> {
    fields(message, |field, message| match field {
        0 => bytes(message).map(drop),
        1 => int(message).map(drop),
        _ => Err(Error::Field),
    })
}

/// A value that waits to be read. Each method consumes it, and the input it stands for.
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

    /// A boolean.
    pub fn bool(self) -> Result<bool, Error> {
        self.expect(id::BOOL, "bool")?;
        match uint(self.input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Range),
        }
    }

    /// A signed number.
    pub fn int(self) -> Result<i64, Error> {
        self.expect(id::INT, "int")?;
        int(self.input)
    }

    /// An unsigned number.
    pub fn uint(self) -> Result<u64, Error> {
        self.expect(id::UINT, "uint")?;
        uint(self.input)
    }

    /// An unsigned number that must fit 32 bits.
    pub fn uint32(self) -> Result<u32, Error> {
        u32::try_from(self.uint()?).map_err(|_| Error::Range)
    }

    /// An unsigned number that must fit 16 bits.
    pub fn uint16(self) -> Result<u16, Error> {
        u16::try_from(self.uint()?).map_err(|_| Error::Range)
    }

    /// A byte string.
    pub fn bytes(self) -> Result<&'a [u8], Error> {
        self.expect(id::BYTES, "bytes")?;
        bytes(self.input)
    }

    /// A text; Go does not check that it is UTF-8, so it comes as bytes.
    pub fn string(self) -> Result<&'a [u8], Error> {
        self.expect(id::STRING, "string")?;
        bytes(self.input)
    }

    /// A text with anything that is not UTF-8 replaced.
    pub fn text(self) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(self.string()?).into_owned())
    }

    /// A slice: calls `each` for every element. Returns their number.
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

    /// A map: reads every key with `key`, then its element with `each`. Returns their number.
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

    /// A struct: calls `each` with the position of a field's name in `known`, for those fields
    /// that were sent and are known; others are skipped.
    pub fn structure(
        self,
        known: &[&str],
        mut each: impl FnMut(usize, Value<'_, 'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(WireType::Struct { fields: defined }) = self.types.defined.get(&self.type_id)
        else {
            return Err(self.kind("struct"));
        };
        let index = |name: &[u8]| known.iter().position(|k| k.as_bytes() == name);
        if !known.is_empty() && !defined.iter().any(|field| index(&field.name).is_some()) {
            return Err(Error::NoCommonField);
        }
        let (depth, types) = (deeper(self.depth)?, self.types);
        fields(self.input, |number, input| {
            let field = defined.get(number).ok_or(Error::Field)?;
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

    /// The undecoded bytes from this value up to the end of its message. A receiver that has
    /// seen the same bytes in the same place before need not decode them again.
    pub fn rest(&self) -> &'a [u8] {
        self.input.rest()
    }

    /// Reads over a value of any type.
    pub fn skip(self) -> Result<(), Error> {
        match self.type_id {
            id::BOOL | id::INT | id::UINT => uint(self.input).map(drop),
            id::BYTES | id::STRING => bytes(self.input).map(drop),
            _ => match self.types.defined.get(&self.type_id) {
                None => Err(Error::UndefinedType(self.type_id)),
                Some(WireType::Unsupported) => Err(Error::Unsupported(self.type_id)),
                Some(WireType::Slice { .. }) => self.slice(|elem| elem.skip()).map(drop),
                Some(WireType::Map { .. }) => {
                    self.map(|key| key.skip(), |(), elem| elem.skip()).map(drop)
                }
                Some(WireType::Struct { .. }) => self.structure(&[], |_, value| value.skip()),
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

/// Reads the fields of a struct body up to its closing zero.
fn fields<'a>(
    input: &mut Cursor<'a>,
    mut each: impl FnMut(usize, &mut Cursor<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut next = 0usize;
    loop {
        let delta = usize::try_from(uint(input)?).map_err(|_| Error::Field)?;
        if delta == 0 {
            return Ok(());
        }
        next = next.checked_add(delta).ok_or(Error::Field)?;
        each(next - 1, input)?;
    }
}

fn uint(input: &mut Cursor<'_>) -> Result<u64, Error> {
    let first = input.u8()?;
    if first < 0x80 {
        return Ok(u64::from(first));
    }
    let len = usize::from(first.wrapping_neg());
    let mut out = [0; 8];
    let Some(tail) = 8usize
        .checked_sub(len)
        .and_then(|start| out.get_mut(start..))
    else {
        return Err(Error::Range);
    };
    tail.copy_from_slice(input.take(len)?);
    Ok(u64::from_be_bytes(out))
}

fn int(input: &mut Cursor<'_>) -> Result<i64, Error> {
    let value = uint(input)?;
    let magnitude = (value >> 1).cast_signed();
    Ok(if value & 1 == 0 {
        magnitude
    } else {
        !magnitude
    })
}

fn bytes<'a>(input: &mut Cursor<'a>) -> Result<&'a [u8], Error> {
    let len = length(input)?;
    Ok(input.take(len)?)
}

/// A length in bytes, which cannot exceed what is left.
fn length(input: &mut Cursor<'_>) -> Result<usize, Error> {
    let value = uint(input)?;
    usize::try_from(value)
        .ok()
        .filter(|len| *len <= input.len())
        .ok_or(Error::Count {
            count: value,
            left: input.len(),
        })
}

/// A number of elements; each takes at least one byte, so it is bounded like a length.
fn count(input: &mut Cursor<'_>) -> Result<usize, Error> {
    length(input)
}
