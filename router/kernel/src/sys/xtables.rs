//! The packet filter of `iptables-legacy` (x_tables): tables are read and replaced whole, by socket
//! options. Layout: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Places on a packet's way where a table's chains are entered.
pub const HOOKS: usize = 5;

/// Address family of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Those of iptables.
    V4,
    /// Those of ip6tables.
    V6,
}

/// Layout of a table (`struct ipt_getinfo` without the name).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// A bit for each hook that the table is entered from.
    pub hooks: u32,
    /// The offset of the first entry for each hook.
    pub starts: [u32; HOOKS],
    /// The offset of the policy of each hook.
    pub policies: [u32; HOOKS],
    /// Number of entries.
    pub entries: u32,
    /// Their size in bytes.
    pub bytes: u32,
}

/// Counters of an entry (`struct xt_counters`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Access to the tables of the namespace in which it was opened.
#[derive(Debug)]
pub struct Tables {
    socket: OwnedFd,
    level: libc::c_int,
}

impl Tables {
    /// Opens them. This alone makes no table.
    pub fn open(family: Family) -> io::Result<Tables> {
        let (domain, level) = match family {
            Family::V4 => (AddressFamily::INET, libc::IPPROTO_IP),
            Family::V6 => (AddressFamily::INET6, libc::IPPROTO_IPV6),
        };
        let socket =
            rustix::net::socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Tables { socket, level })
    }

    /// Returns how a table is laid out. The kernel makes the table if it does not exist.
    pub fn info(&self, table: &str) -> io::Result<Info> {
        let mut request = InfoRequest {
            name: name(table)?,
            info: Info::default(),
        };
        let bytes = size_of::<InfoRequest>();
        // SAFETY: `request` has the layout of struct ipt_getinfo and lives until the call returns;
        // any bits are a value of it.
        unsafe { self.get(GET_INFO, (&raw mut request).cast(), bytes)? };
        Ok(request.info)
    }

    /// Returns the entries of a table of that many bytes. An error of the kind
    /// [`io::ErrorKind::WouldBlock`] says that the table has another size by now.
    pub fn entries(&self, table: &str, bytes: u32) -> io::Result<Vec<u8>> {
        let header = size_of::<EntriesRequest>();
        let mut buffer = aligned(header + bytes as usize);
        let request = EntriesRequest {
            name: name(table)?,
            bytes,
            entries: [],
        };
        // SAFETY: the buffer is aligned for u64, as the header is, and at least as long.
        unsafe { ptr::write(buffer.as_mut_ptr().cast(), request) };
        // SAFETY: the buffer holds the header of struct ipt_get_entries and as many bytes as it
        // announces, and lives until the call returns; any bits are a value of it.
        unsafe {
            self.get(
                GET_ENTRIES,
                buffer.as_mut_ptr().cast(),
                header + bytes as usize,
            )?
        };
        Ok(bytes_of(&buffer)[header..header + bytes as usize].to_vec())
    }

    /// Replaces a table that had `before` entries, in one step, and returns what these have
    /// counted until then. The new ones have counted nothing. An error of the kind
    /// [`io::ErrorKind::WouldBlock`] says that the table had another number of entries.
    pub fn replace(
        &self,
        table: &str,
        info: &Info,
        entries: &[u8],
        before: u32,
    ) -> io::Result<Vec<Counter>> {
        let mut counters = vec![Counter::default(); before as usize];
        let header = size_of::<ReplaceRequest>();
        let request = ReplaceRequest {
            name: name(table)?,
            hooks: info.hooks,
            entries: info.entries,
            bytes: info.bytes,
            starts: info.starts,
            policies: info.policies,
            counters_before: before,
            counters: counters.as_mut_ptr(),
            blob: [],
        };
        debug_assert_eq!(entries.len(), info.bytes as usize);
        let buffer = with_header(request, entries);
        // SAFETY: the buffer holds struct ipt_replace and the entries that it announces; its
        // pointer leads to as many counters as it announces, to which the kernel writes, and which
        // live until the call returns.
        unsafe { self.set(SET_REPLACE, &buffer, header + entries.len())? };
        Ok(counters)
    }

    /// Adds to what the entries of a table have counted, in their order.
    pub fn add_counters(&self, table: &str, counters: &[Counter]) -> io::Result<()> {
        let header = size_of::<CountersRequest>();
        let request = CountersRequest {
            name: name(table)?,
            number: counters.len() as u32,
            counters: [],
        };
        let mut bytes = Vec::with_capacity(size_of_val(counters));
        for counter in counters {
            bytes.extend_from_slice(&counter.packets.to_ne_bytes());
            bytes.extend_from_slice(&counter.bytes.to_ne_bytes());
        }
        let buffer = with_header(request, &bytes);
        // SAFETY: the buffer holds struct xt_counters_info and the counters that it announces.
        unsafe { self.set(SET_ADD_COUNTERS, &buffer, header + bytes.len()) }
    }

    /// # Safety
    ///
    /// `value` leads to `bytes` bytes that the kernel may write, laid out as the option demands.
    unsafe fn get(
        &self,
        option: libc::c_int,
        value: *mut libc::c_void,
        bytes: usize,
    ) -> io::Result<()> {
        let mut length = bytes as libc::socklen_t;
        // SAFETY: the caller vouches for `value` and its length, and the descriptor is open.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                value,
                &raw mut length,
            )
        };
        done(result)
    }

    /// # Safety
    ///
    /// The first `bytes` bytes of `value` are laid out as the option demands, and pointers in them
    /// lead to what it says.
    unsafe fn set(&self, option: libc::c_int, value: &[u64], bytes: usize) -> io::Result<()> {
        assert!(bytes <= size_of_val(value));
        // SAFETY: the caller vouches for the content; the length was compared above, and the
        // descriptor is open.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                value.as_ptr().cast(),
                bytes as libc::socklen_t,
            )
        };
        done(result)
    }
}

/// `struct ipt_getinfo`.
#[repr(C)]
struct InfoRequest {
    name: Name,
    info: Info,
}

/// `struct ipt_get_entries`.
#[repr(C)]
struct EntriesRequest {
    name: Name,
    bytes: u32,
    entries: [u64; 0],
}

/// `struct ipt_replace`.
#[repr(C)]
struct ReplaceRequest {
    name: Name,
    hooks: u32,
    entries: u32,
    bytes: u32,
    starts: [u32; HOOKS],
    policies: [u32; HOOKS],
    counters_before: u32,
    counters: *mut Counter,
    blob: [u64; 0],
}

/// `struct xt_counters_info`.
#[repr(C)]
struct CountersRequest {
    name: Name,
    number: u32,
    counters: [Counter; 0],
}

type Name = [u8; 32];

fn name(table: &str) -> io::Result<Name> {
    let mut name = [0; 32];
    if table.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    name[..table.len()].copy_from_slice(table.as_bytes());
    Ok(name)
}

/// Room for that many bytes, aligned as the kernel's structures are.
fn aligned(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(size_of::<u64>())]
}

fn bytes_of(buffer: &[u64]) -> &[u8] {
    // SAFETY: any u64 is eight bytes, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), size_of_val(buffer)) }
}

/// Creates a header and what follows it.
fn with_header<T>(header: T, rest: &[u8]) -> Vec<u64> {
    const { assert!(align_of::<T>() <= align_of::<u64>()) };
    let mut buffer = aligned(size_of::<T>() + rest.len());
    let start = buffer.as_mut_ptr();
    // SAFETY: the buffer is long enough for both, aligned for the header, and nobody else's.
    unsafe {
        ptr::write(start.cast(), header);
        let behind = start.cast::<u8>().add(size_of::<T>());
        ptr::copy_nonoverlapping(rest.as_ptr(), behind, rest.len());
    }
    buffer
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

// The kernel compares lengths, and finds the rest behind headers of these sizes.
const _: () = {
    assert!(size_of::<InfoRequest>() == 84);
    assert!(offset_of!(EntriesRequest, bytes) == 32);
    assert!(offset_of!(ReplaceRequest, counters_before) == 84);
    if size_of::<usize>() == 8 {
        assert!(size_of::<EntriesRequest>() == 40);
        assert!(size_of::<ReplaceRequest>() == 96);
        assert!(size_of::<CountersRequest>() == 40);
    }
};

const SET_REPLACE: libc::c_int = 64;
const SET_ADD_COUNTERS: libc::c_int = 65;
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
