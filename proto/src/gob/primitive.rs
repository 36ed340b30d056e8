//! Numbers, byte strings and struct bodies.

use super::error::Error;
use crate::cursor::Cursor;

/// Reads the fields of a struct body up to its terminating zero.
///
/// Format: `docs/protocol/gob.md#3-structs`.
pub(super) fn fields<'a>(
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

/// Format: `docs/protocol/gob.md#1-primitives`.
pub(super) fn uint(input: &mut Cursor<'_>) -> Result<u64, Error> {
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

/// Format: `docs/protocol/gob.md#1-primitives`.
pub(super) fn int(input: &mut Cursor<'_>) -> Result<i64, Error> {
    let value = uint(input)?;
    let magnitude = (value >> 1).cast_signed();
    Ok(if value & 1 == 0 {
        magnitude
    } else {
        !magnitude
    })
}

/// Format: `docs/protocol/gob.md#1-primitives`.
pub(super) fn bytes<'a>(input: &mut Cursor<'a>) -> Result<&'a [u8], Error> {
    let len = length(input)?;
    Ok(input.take(len)?)
}

/// Reads a length in bytes, which must not exceed the bytes left.
pub(super) fn length(input: &mut Cursor<'_>) -> Result<usize, Error> {
    let value = uint(input)?;
    usize::try_from(value)
        .ok()
        .filter(|len| *len <= input.len())
        .ok_or(Error::Count {
            count: value,
            left: input.len(),
        })
}

/// Reads a number of elements. Each takes at least one byte, so the bound is that of a length.
pub(super) fn count(input: &mut Cursor<'_>) -> Result<usize, Error> {
    length(input)
}
