//! The types that a stream defines.

use std::collections::BTreeMap;

use super::error::Error;
use super::id;
use super::primitive::{bytes, count, fields, int};
use crate::cursor::Cursor;

/// Maximum number of types that one stream may define. Weave Net's largest stream has 12.
///
/// Rule: `docs/protocol/gob.md#7-limits`.
const TYPES_MAX: usize = 64;
/// Maximum number of struct fields that one stream may define in all its types together. It bounds
/// the memory of a long-lived stream.
const FIELDS_MAX: usize = 256;
/// Maximum length of a struct field's name in bytes.
const FIELD_NAME_BYTES_MAX: usize = 128;

/// The types that a stream has defined so far.
#[derive(Debug, Default)]
pub struct Types {
    pub(super) defined: BTreeMap<i64, WireType>,
    fields: usize,
}

#[derive(Debug)]
pub(super) enum WireType {
    /// Slices and arrays, which look alike in a value.
    Slice {
        elem: i64,
    },
    Map {
        key: i64,
        elem: i64,
    },
    Struct(Structure),
    /// Types with an encoding of their own: a counted run of bytes, which can only be skipped.
    Opaque,
}

#[derive(Debug)]
pub(super) struct Structure {
    pub(super) fields: Vec<Field>,
    /// The fields' places, in the order of their names.
    by_name: Vec<usize>,
}

impl Structure {
    fn new(fields: Vec<Field>) -> Structure {
        let mut by_name: Vec<usize> = (0..fields.len()).collect();
        by_name.sort_by(|a, b| fields[*a].name.cmp(&fields[*b].name));
        Structure { fields, by_name }
    }

    /// Returns true if a field has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        let order = |place: &usize| self.fields[*place].name.as_slice().cmp(name.as_bytes());
        self.by_name.binary_search_by(order).is_ok()
    }
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Vec<u8>,
    pub(super) id: i64,
}

impl Types {
    /// Reads the type id of a message. Stores a definition and returns `None`.
    pub(super) fn header(&mut self, message: &mut Cursor<'_>) -> Result<Option<i64>, Error> {
        let type_id = int(message)?;
        if type_id < 0 {
            let type_id = type_id.checked_neg().ok_or(Error::Range)?;
            self.define(type_id, message)?;
            return Ok(None);
        }
        let is_struct = matches!(self.defined.get(&type_id), Some(WireType::Struct(_)));
        if !is_struct && message.u8()? != 0 {
            return Err(Error::Field);
        }
        Ok(Some(type_id))
    }

    /// Format: `docs/protocol/gob.md#4-definitions`.
    fn define(&mut self, type_id: i64, message: &mut Cursor<'_>) -> Result<(), Error> {
        let taken = type_id < id::FIRST_USER || self.defined.contains_key(&type_id);
        if taken || self.defined.len() >= TYPES_MAX {
            return Err(Error::BadDefinition(type_id));
        }
        let room = FIELDS_MAX - self.fields;
        let mut wire = None;
        fields(message, |field, message| {
            wire = Some(match field {
                0 => read_array(message)?,
                1 => read_slice(message)?,
                2 => read_struct(message, type_id, room)?,
                3 => read_map(message)?,
                4..=6 => read_opaque(message)?,
                _ => return Err(Error::Field),
            });
            Ok(())
        })?;
        if !message.is_empty() {
            return Err(Error::Trailing(message.len()));
        }
        let wire = wire.ok_or(Error::BadDefinition(type_id))?;
        if let WireType::Struct(structure) = &wire {
            self.fields += structure.fields.len();
        }
        self.defined.insert(type_id, wire);
        Ok(())
    }
}

fn read_array(message: &mut Cursor<'_>) -> Result<WireType, Error> {
    let mut elem = 0;
    fields(message, |field, message| match field {
        0 => common(message),
        1 => int(message).map(|id| elem = id),
        2 => int(message).map(drop),
        _ => Err(Error::Field),
    })?;
    Ok(WireType::Slice { elem })
}

fn read_opaque(message: &mut Cursor<'_>) -> Result<WireType, Error> {
    fields(message, |field, message| match field {
        0 => common(message),
        _ => Err(Error::Field),
    })?;
    Ok(WireType::Opaque)
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

/// Reads a struct of at most `room` fields.
fn read_struct(message: &mut Cursor<'_>, type_id: i64, room: usize) -> Result<WireType, Error> {
    let mut out = Vec::new();
    fields(message, |field, message| match field {
        0 => common(message),
        1 => {
            for _ in 0..count(message)? {
                let field = read_field(message)?;
                if out.len() >= room || field.name.len() > FIELD_NAME_BYTES_MAX {
                    return Err(Error::BadDefinition(type_id));
                }
                out.push(Field {
                    name: field.name.to_vec(),
                    id: field.id,
                });
            }
            Ok(())
        }
        _ => Err(Error::Field),
    })?;
    Ok(WireType::Struct(Structure::new(out)))
}

/// A field whose name still lies in the input.
struct FieldView<'a> {
    name: &'a [u8],
    id: i64,
}

fn read_field<'a>(message: &mut Cursor<'a>) -> Result<FieldView<'a>, Error> {
    let mut out = FieldView { name: &[], id: 0 };
    fields(message, |field, message| match field {
        0 => bytes(message).map(|name| out.name = name),
        1 => int(message).map(|id| out.id = id),
        _ => Err(Error::Field),
    })?;
    Ok(out)
}

/// Returns the name and id that every definition repeats; they carry no meaning here.
fn common(message: &mut Cursor<'_>) -> Result<(), Error> {
    fields(message, |field, message| match field {
        0 => bytes(message).map(drop),
        1 => int(message).map(drop),
        _ => Err(Error::Field),
    })
}
