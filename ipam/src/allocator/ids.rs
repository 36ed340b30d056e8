//! Ids of the users of addresses.

use super::api::RequestError;
use crate::leases::CONTAINER_BYTES_MAX;
use crate::persist::ID_BYTES_MAX;

/// The id of requests that have none.
pub(super) const NO_ID: &str = "_";

/// Returns the id of a container as it is sent to other routers.
pub(super) fn container_name(id: &str) -> String {
    let len = id.floor_char_boundary(CONTAINER_BYTES_MAX);
    id.get(..len).unwrap_or(id).to_owned()
}

/// Why an id is invalid.
pub(super) fn bad_id(id: &str) -> Option<RequestError> {
    // It is shown line by line.
    let valid = !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains(char::is_control);
    let text =
        format!("an id must have 1 to {ID_BYTES_MAX} bytes, none of them control characters");
    (!valid).then_some(RequestError::Invalid(text))
}
