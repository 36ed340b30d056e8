//! A reader over a byte slice that cannot run past its end.

/// The input ends before the item does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input ends early: {wanted} bytes wanted, {left} left")]
pub struct EndOfInput {
    /// Number of bytes that the item needs.
    pub wanted: usize,
    /// Number of bytes left.
    pub left: usize,
}

/// Reads a slice from front to back. Numbers are big-endian.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Creates a cursor at the start of `input`.
    pub const fn new(input: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: input }
    }

    /// Returns the bytes that have not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns the number of bytes left.
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Returns true if no bytes are left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], EndOfInput> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(EndOfInput {
                wanted: count,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(head)
    }

    /// Returns the next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], EndOfInput> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(EndOfInput {
                wanted: N,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// Returns the next byte.
    pub fn u8(&mut self) -> Result<u8, EndOfInput> {
        Ok(self.array::<1>()?[0])
    }

    /// Returns the next two bytes as a number.
    pub fn u16(&mut self) -> Result<u16, EndOfInput> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Returns the next four bytes as a number.
    pub fn u32(&mut self) -> Result<u32, EndOfInput> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Returns the next eight bytes as a number.
    pub fn u64(&mut self) -> Result<u64, EndOfInput> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_stops_at_the_end() {
        let mut cursor = Cursor::new(&[1, 0, 2, 0, 0, 0, 3, 9]);
        assert_eq!(cursor.u8(), Ok(1));
        assert_eq!(cursor.u16(), Ok(2));
        assert_eq!(cursor.u32(), Ok(3));
        assert_eq!(cursor.u16(), Err(EndOfInput { wanted: 2, left: 1 }));
        assert_eq!(cursor.take(1), Ok(&[9][..]));
        assert!(cursor.is_empty());
    }
}
