//! The functions that templates may call.

const FUNCTIONS: [&str; 16] = [
    "json", "printf", "print", "println", "len", "index", "eq", "ne", "lt", "le", "gt", "ge",
    "and", "or", "not", "join",
];

/// Those that write out or compare all of what they are given.
pub(super) const WRITERS: [&str; 11] = [
    "json", "printf", "print", "println", "join", "eq", "ne", "lt", "le", "gt", "ge",
];

pub(super) fn is_function(word: &str) -> bool {
    FUNCTIONS.contains(&word)
}
