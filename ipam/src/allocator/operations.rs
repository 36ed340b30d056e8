//! What users ask for that may have to wait.

pub(super) mod allocate;
pub(super) mod claim;
