//! Writing streams as Go's encoder does.

/// The type of a value, as it is declared to the receiver.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Writes a boolean.
    Bool,
    /// A signed number of any width.
    Int,
    /// An unsigned number of any width.
    Uint,
    /// A byte string.
    Bytes,
    /// A text.
    String,
    /// A list of elements of one type.
    Slice(&'static SliceType),
    /// Keys with elements.
    Map(&'static MapType),
    /// Named fields.
    Struct(&'static StructType),
}

/// Definition of a list type. Make it a `static`: its address is its identity.
#[derive(Debug)]
pub struct SliceType {
    /// Go's name of the type, empty if it has none.
    pub name: &'static str,
    /// The type of each element.
    pub elem: Type,
}

/// The definition of a map type. Make it a `static`: its address is its identity.
#[derive(Debug)]
pub struct MapType {
    /// Go's name of the type, empty if it has none.
    pub name: &'static str,
    /// The type of each key.
    pub key: Type,
    /// The type of each element.
    pub elem: Type,
}

/// The definition of a struct type. Make it a `static`: its address is its identity.
#[derive(Debug)]
pub struct StructType {
    /// Go's name of the type, empty if it has none.
    pub name: &'static str,
    /// Names and types of the fields, in order.
    pub fields: &'static [(&'static str, Type)],
}

/// Go hands out the ids of user types from here.
const FIRST_ID: i64 = 65;

/// Writes values to a stream, each type's definition before its first value.
///
/// Format: `docs/protocol/gob.md#2-messages`.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    scratch: Vec<u8>,
    defined: Vec<(Type, i64)>,
    given_ids: std::collections::VecDeque<i64>,
}

impl Encoder {
    /// Creates an encoder that numbers its types from 65.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Creates an encoder that assigns these ids to types in the order of their definition, and
    /// then numbers as usual. With the ids of a recorded stream it produces the same bytes.
    pub fn with_ids(ids: impl IntoIterator<Item = i64>) -> Encoder {
        Encoder {
            given_ids: ids.into_iter().collect(),
            ..Encoder::default()
        }
    }

    /// Writes one top-level value of type `ty`; `write` must write exactly such a value.
    ///
    /// Format: `docs/protocol/gob.md#2-messages`.
    pub fn value(&mut self, ty: Type, write: impl FnOnce(&mut Writer<'_>)) {
        let fresh = self.defined.len();
        self.define(ty);
        for index in fresh..self.defined.len() {
            self.write_definition(index);
        }
        let id = self.id(ty);
        self.message(|out| {
            put_int(out, id);
            if !matches!(ty, Type::Struct(_)) {
                out.push(0);
            }
            write(&mut Writer { out });
        });
    }

    /// Returns the current length of the stream in bytes.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Returns true if nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Returns the stream so far. The encoder continues with the types that it has defined.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Returns the complete stream.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn message(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        write(&mut self.scratch);
        put_uint(&mut self.out, self.scratch.len() as u64);
        self.out.extend_from_slice(&self.scratch);
    }

    /// Numbers a type and the types that it consists of, itself first, in Go's order.
    ///
    /// Format: `docs/protocol/gob.md#2-messages`.
    fn define(&mut self, ty: Type) {
        if ty.builtin_id().is_some() || self.defined.iter().any(|(known, _)| known.same(ty)) {
            return;
        }
        let id = self.given_ids.pop_front().unwrap_or_else(|| {
            self.defined
                .iter()
                .map(|(_, id)| id + 1)
                .fold(FIRST_ID, i64::max)
        });
        self.defined.push((ty, id));
        match ty {
            Type::Slice(slice) => self.define(slice.elem),
            Type::Map(map) => {
                self.define(map.key);
                self.define(map.elem);
            }
            Type::Struct(structure) => {
                for (_, field) in structure.fields {
                    self.define(*field);
                }
            }
            Type::Bool | Type::Int | Type::Uint | Type::Bytes | Type::String => {}
        }
    }

    fn id(&self, ty: Type) -> i64 {
        let defined = || {
            self.defined
                .iter()
                .find(|(known, _)| known.same(ty))
                .map(|(_, id)| *id)
        };
        ty.builtin_id().or_else(defined).unwrap_or_default()
    }

    /// Format: `docs/protocol/gob.md#4-definitions`.
    fn write_definition(&mut self, index: usize) {
        let Some(&(ty, id)) = self.defined.get(index) else {
            return;
        };
        let ids: Vec<i64> = match ty {
            Type::Slice(slice) => vec![self.id(slice.elem)],
            Type::Map(map) => vec![self.id(map.key), self.id(map.elem)],
            Type::Struct(structure) => structure
                .fields
                .iter()
                .map(|(_, field)| self.id(*field))
                .collect(),
            _ => return,
        };
        self.message(|out| {
            put_int(out, -id);
            let mut writer = Writer { out };
            writer.structure(|wire| match ty {
                Type::Slice(slice) => wire.structure(1, |w| {
                    common(w, slice.name, id);
                    w.int(1, ids[0]);
                }),
                Type::Map(map) => wire.structure(3, |w| {
                    common(w, map.name, id);
                    w.int(1, ids[0]);
                    w.int(2, ids[1]);
                }),
                Type::Struct(structure) => wire.structure(2, |w| {
                    common(w, structure.name, id);
                    w.slice(
                        1,
                        structure.fields.iter().zip(&ids),
                        |out, ((name, _), id)| {
                            out.structure(|field| {
                                field.string(0, name.as_bytes());
                                field.int(1, *id);
                            });
                        },
                    );
                }),
                _ => {}
            });
        });
    }
}

fn common(writer: &mut StructWriter<'_>, name: &str, id: i64) {
    writer.structure(0, |common| {
        common.string(0, name.as_bytes());
        common.int(1, id);
    });
}

impl Type {
    fn builtin_id(self) -> Option<i64> {
        match self {
            Type::Bool => Some(super::id::BOOL),
            Type::Int => Some(super::id::INT),
            Type::Uint => Some(super::id::UINT),
            Type::Bytes => Some(super::id::BYTES),
            Type::String => Some(super::id::STRING),
            Type::Slice(_) | Type::Map(_) | Type::Struct(_) => None,
        }
    }

    fn same(self, other: Type) -> bool {
        match (self, other) {
            (Type::Slice(a), Type::Slice(b)) => std::ptr::eq(a, b),
            (Type::Map(a), Type::Map(b)) => std::ptr::eq(a, b),
            (Type::Struct(a), Type::Struct(b)) => std::ptr::eq(a, b),
            _ => false,
        }
    }
}

/// Writes one value: a top-level value, an element, or a key.
///
/// Format: `docs/protocol/gob.md#1-primitives`.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl Writer<'_> {
    /// Writes a boolean.
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    /// Writes a signed number.
    pub fn int(&mut self, value: i64) {
        put_int(self.out, value);
    }

    /// Writes an unsigned number.
    pub fn uint(&mut self, value: u64) {
        put_uint(self.out, value);
    }

    /// Writes a byte string or a text.
    pub fn bytes(&mut self, value: &[u8]) {
        put_uint(self.out, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// Writes a list, each item by `each`.
    pub fn slice<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Writer<'_>, T),
    ) {
        put_uint(self.out, items.len() as u64);
        for item in items {
            each(&mut Writer { out: self.out }, item);
        }
    }

    /// Writes a map. `each` writes the key, then the element.
    pub fn map<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        each: impl FnMut(&mut Writer<'_>, T),
    ) {
        self.slice(items, each);
    }

    /// Writes a struct. `fields` writes its fields in the order of their numbers.
    pub fn structure(&mut self, fields: impl FnOnce(&mut StructWriter<'_>)) {
        fields(&mut StructWriter {
            out: self.out,
            next: 0,
        });
        self.out.push(0);
    }
}

/// Writes the fields of a struct, leaving out what Go leaves out: zero numbers, empty texts and
/// lists. Field numbers count from 0 and must grow.
///
/// Format: `docs/protocol/gob.md#3-structs`.
#[derive(Debug)]
pub struct StructWriter<'o> {
    out: &'o mut Vec<u8>,
    next: usize,
}

impl StructWriter<'_> {
    fn field(&mut self, number: usize) -> Writer<'_> {
        debug_assert!(number >= self.next, "fields must be written in order");
        put_uint(self.out, (number + 1 - self.next) as u64);
        self.next = number + 1;
        Writer { out: self.out }
    }

    /// Writes a boolean field.
    pub fn bool(&mut self, number: usize, value: bool) {
        if value {
            self.field(number).bool(value);
        }
    }

    /// Writes a signed field.
    pub fn int(&mut self, number: usize, value: i64) {
        if value != 0 {
            self.field(number).int(value);
        }
    }

    /// Writes an unsigned field.
    pub fn uint(&mut self, number: usize, value: u64) {
        if value != 0 {
            self.field(number).uint(value);
        }
    }

    /// Writes a field of bytes.
    pub fn bytes(&mut self, number: usize, value: &[u8]) {
        if !value.is_empty() {
            self.field(number).bytes(value);
        }
    }

    /// Writes a field of text.
    pub fn string(&mut self, number: usize, value: &[u8]) {
        self.bytes(number, value);
    }

    /// Writes a list field.
    pub fn slice<T>(
        &mut self,
        number: usize,
        items: impl ExactSizeIterator<Item = T>,
        each: impl FnMut(&mut Writer<'_>, T),
    ) {
        if items.len() != 0 {
            self.field(number).slice(items, each);
        }
    }

    /// Writes a map field. Unlike a list, it is written even if it is empty.
    pub fn map<T>(
        &mut self,
        number: usize,
        items: impl ExactSizeIterator<Item = T>,
        each: impl FnMut(&mut Writer<'_>, T),
    ) {
        self.field(number).map(items, each);
    }

    /// Writes a struct field. It is written even if all its own fields are zero.
    pub fn structure(&mut self, number: usize, fields: impl FnOnce(&mut StructWriter<'_>)) {
        self.field(number).structure(fields);
    }
}

/// Format: `docs/protocol/gob.md#1-primitives`.
fn put_uint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let len = 8 - value.leading_zeros() as usize / 8;
    out.push((len as u8).wrapping_neg());
    out.extend_from_slice(&value.to_be_bytes()[8 - len..]);
}

/// Format: `docs/protocol/gob.md#1-primitives`.
fn put_int(out: &mut Vec<u8>, value: i64) {
    let shifted = value.cast_unsigned() << 1;
    put_uint(out, if value < 0 { !shifted } else { shifted });
}
