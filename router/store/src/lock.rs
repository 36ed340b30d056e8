//! A lock on a file that tells who holds it.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use boundary::records::Held;

/// A lock that ends with its process, however that ends.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock of `path`, which is made if need be; tells who has it if it is taken. What
    /// is not a file, or leads to one elsewhere, is refused: its text is replaced. Only the owner
    /// may read it, since who can read it can hold the lock.
    pub fn take(path: &Path) -> io::Result<Result<FileLock, Held>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(MODE).custom_flags(flags());
        let named = |error: io::Error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                io::Error::other(format!("{} is a link; remove it", path.display()))
            }
            _ => error,
        };
        let mut file = options.open(path).map_err(named)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let error = format!("{} is not a file; remove it", path.display());
            return Err(io::Error::other(error));
        }
        if metadata.permissions().mode() & !FILE_TYPE != MODE {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Ok(FileLock { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&file).take(32).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                Ok(Err(Held { pid }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// No links, and no waiting for the other end of what is not a file.
fn flags() -> i32 {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    flags.bits().cast_signed()
}

const MODE: u32 = 0o600;
/// The bits of a mode that tell what it is the mode of.
const FILE_TYPE: u32 = 0o170_000;
