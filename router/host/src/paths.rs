//! Paths that users give.

use std::path::{Path, PathBuf};

/// Returns a path; none for the empty text.
pub fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// Appends `name` to a prefix, which may end in a slash or in the start of a file name.
pub fn prefixed(prefix: &Path, name: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(name);
    PathBuf::from(path)
}
