//! Access to the recorded vectors, for tests.

use serde_json::Value;

/// Returns the content of a file of vectors.
pub(crate) fn load(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect(&path)
}

/// Returns the list under this key, which must not be empty.
pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    let list = value[key].as_array().expect(key);
    assert!(!list.is_empty(), "{key} is empty");
    list
}

/// Returns the text under this key.
pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().expect(key)
}

/// Returns the bytes whose hex digits stand under this key.
pub(crate) fn bytes(value: &Value, key: &str) -> Vec<u8> {
    unhex(text(value, key))
}

/// Returns the bytes with these hex digits.
pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect(hex))
        .collect()
}

/// Returns the map from text to text under this key.
pub(crate) fn map(value: &Value, key: &str) -> std::collections::BTreeMap<String, String> {
    let object = value[key].as_object().expect(key);
    object
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().expect(key).to_owned()))
        .collect()
}
