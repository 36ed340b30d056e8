//! A reader over a byte slice that cannot run past its end.

/// The input ended before the item did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input ends early: {wanted} bytes wanted, {left} left")]
pub struct EndOfInput {
    /// How many bytes the item needs.
    pub wanted: usize,
    /// How many are there.
    pub left: usize,
}

/// Reads a slice from front to back; numbers are big-endian.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `input`.
    pub const fn new(input: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: input }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes are left.
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
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

    /// The next `N` bytes as an array.
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

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, EndOfInput> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> Result<u16, EndOfInput> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Result<u32, EndOfInput> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The next eight bytes as a number.
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
