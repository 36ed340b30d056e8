//! Reading a Bolt file, Weave Net's data base.
//!
//! Numbers are little-endian. The file is a series of pages of one size; pages 0 and 1 are meta
//! pages, of which the valid one with the higher transaction counts:
//!
//! ```text
//! page   | id u64 | flags u16 | count u16 | overflow u32 | elements ... keys and values ... |
//! meta   | ED0CDAED u32 | 2 u32 | page size u32 | flags u32 | root page u64 | sequence u64 |
//!        | free list u64 | high page u64 | transaction u64 | FNV-1a-64 of the above u64 |
//! branch | pos u32 | key size u32 | child page u64 |
//! leaf   | flags u32 | pos u32 | key size u32 | value size u32 |
//! bucket | root page u64 | sequence u64 | an inline leaf page, if the root is 0 |
//! ```
//!
//! A position counts from the start of its own element. The reader never follows a page twice on
//! one path, and stops at named limits, so no file can make it run long.

use std::collections::BTreeMap;

/// Maximum depth of a tree. A deeper one is refused.
const DEPTH_MAX: u32 = 24;
/// Maximum number of pages read in one walk. A larger tree is refused.
const PAGES_MAX: u32 = 1 << 16;
/// Page sizes that are tried when the first meta page is damaged, in bytes.
const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

const PAGE_HEADER: usize = 16;
const META_LEN: usize = 64;
const META_SUMMED: usize = 56;
const ELEMENT: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const FLAG_BRANCH: u16 = 1;
const FLAG_LEAF: u16 = 2;
const LEAF_IS_BUCKET: u32 = 1;

/// Why a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoltError {
    /// Neither meta page is valid.
    #[error("not a Bolt file, or both of its meta pages are damaged")]
    NoMeta,
    /// Something points outside the file or to a page of the wrong kind.
    #[error("damaged page {0}")]
    BadPage(u64),
    /// The tree is deeper or larger than any real one.
    #[error("the tree of pages is too large")]
    TooLarge,
    /// The bucket does not exist.
    #[error("bucket missing")]
    NoBucket,
}

/// Returns the keys and values of the bucket `name` of a Bolt file with the content `file`.
///
/// Format: `docs/protocol/ipam.md#10-2-bolt`.
pub fn read_bucket<'a>(
    file: &'a [u8],
    name: &[u8],
) -> Result<BTreeMap<&'a [u8], &'a [u8]>, BoltError> {
    let meta = newest_meta(file).ok_or(BoltError::NoMeta)?;
    let mut walk = Walk {
        file,
        page_size: meta.page_size,
        pages_left: PAGES_MAX,
    };
    let mut bucket = None;
    walk.tree(meta.root, 0, &mut |key, value, is_bucket| {
        if is_bucket && key == name {
            bucket = Some(value);
        }
    })?;
    let bucket = bucket.ok_or(BoltError::NoBucket)?;
    let mut out = BTreeMap::new();
    let mut collect = |key, value, is_bucket: bool| {
        if !is_bucket {
            out.insert(key, value);
        }
    };
    match u64_at(bucket, 0).ok_or(BoltError::NoBucket)? {
        0 => {
            let inline = bucket.get(PAGE_HEADER..).ok_or(BoltError::NoBucket)?;
            walk.page(inline, 0, 0, &mut collect)?;
        }
        root => walk.tree(root, 0, &mut collect)?,
    }
    Ok(out)
}

struct Meta {
    page_size: usize,
    root: u64,
    transaction: u64,
}

fn newest_meta(file: &[u8]) -> Option<Meta> {
    let first = meta_at(file, 0);
    let size = first.as_ref().map(|meta| meta.page_size);
    let second = match size {
        Some(size) => meta_at(file, size),
        None => PAGE_SIZES
            .into_iter()
            .find_map(|size| meta_at(file, size).filter(|meta| meta.page_size == size)),
    };
    first
        .into_iter()
        .chain(second)
        .max_by_key(|meta| meta.transaction)
}

fn meta_at(file: &[u8], page_start: usize) -> Option<Meta> {
    let start = page_start.checked_add(PAGE_HEADER)?;
    let meta = file.get(start..start.checked_add(META_LEN)?)?;
    let whole = u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && u64_at(meta, META_SUMMED)? == fnv1a(meta.get(..META_SUMMED)?);
    let page_size = usize::try_from(u32_at(meta, 8)?).ok()?;
    (whole && page_size >= 512).then_some(Meta {
        page_size,
        root: u64_at(meta, 16)?,
        transaction: u64_at(meta, 48)?,
    })
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

struct Walk<'a> {
    file: &'a [u8],
    page_size: usize,
    pages_left: u32,
}

type Each<'w, 'a> = &'w mut dyn FnMut(&'a [u8], &'a [u8], bool);

impl<'a> Walk<'a> {
    fn tree(&mut self, id: u64, depth: u32, each: Each<'_, 'a>) -> Result<(), BoltError> {
        let bad = BoltError::BadPage(id);
        let number = usize::try_from(id).map_err(|_| bad)?;
        let start = number.checked_mul(self.page_size).ok_or(bad)?;
        let first = self.file.get(start..).ok_or(bad)?;
        let pages = usize::try_from(u32_at(first, 12).ok_or(bad)?)
            .ok()
            .and_then(|overflow| overflow.checked_add(1))
            .ok_or(bad)?;
        let len = pages.checked_mul(self.page_size).ok_or(bad)?;
        let page = first.get(..len.min(first.len())).ok_or(bad)?;
        self.page(page, id, depth, each)
    }

    fn page(
        &mut self,
        page: &'a [u8],
        id: u64,
        depth: u32,
        each: Each<'_, 'a>,
    ) -> Result<(), BoltError> {
        let bad = BoltError::BadPage(id);
        if depth > DEPTH_MAX || self.pages_left == 0 {
            return Err(BoltError::TooLarge);
        }
        self.pages_left -= 1;
        let flags = u16_at(page, 8).ok_or(bad)?;
        let count = usize::from(u16_at(page, 10).ok_or(bad)?);
        for i in 0..count {
            let start = PAGE_HEADER + i * ELEMENT;
            let element = page.get(start..).ok_or(bad)?;
            if flags & FLAG_BRANCH != 0 {
                let child = u64_at(element, 8).ok_or(bad)?;
                self.tree(child, depth + 1, each)?;
            } else if flags & FLAG_LEAF != 0 {
                let (key, value, is_bucket) = leaf(element).ok_or(bad)?;
                each(key, value, is_bucket);
            } else {
                return Err(bad);
            }
        }
        Ok(())
    }
}

fn leaf(element: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let number = |at| u32_at(element, at).and_then(|n| usize::try_from(n).ok());
    let (position, key_len, value_len) = (number(4)?, number(8)?, number(12)?);
    let rest = element.get(position..)?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let value = rest.get(..value_len)?;
    Some((key, value, u32_at(element, 0)? & LEAF_IS_BUCKET != 0))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/weavedata.db");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_damaged_first_meta_page_is_survived() {
        let whole = file();
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        let second = meta_at(&whole, 4096).map(|meta| meta.transaction);
        assert_eq!(newest_meta(&damaged).map(|meta| meta.transaction), second);
        damaged[4096 + 20] ^= 1;
        assert_eq!(read_bucket(&damaged, b"top"), Err(BoltError::NoMeta));
    }

    #[test]
    fn a_page_that_contains_itself_ends_at_the_limit() {
        let mut file = file();
        let root = usize::try_from(newest_meta(&file).unwrap().root).unwrap();
        let page = root * 4096;
        file[page + 8] = FLAG_BRANCH as u8;
        file[page + 10..page + 12].copy_from_slice(&2u16.to_le_bytes());
        for element in 0..2 {
            let child = page + PAGE_HEADER + element * ELEMENT + 8;
            file[child..child + 8].copy_from_slice(&(root as u64).to_le_bytes());
        }
        assert_eq!(read_bucket(&file, b"top"), Err(BoltError::TooLarge));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_makes_it_panic() {
        let whole = file();
        for end in (0..whole.len()).step_by(61) {
            let _ = read_bucket(&whole[..end], b"top");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            let _ = read_bucket(&flipped, b"top");
        }
    }
}
