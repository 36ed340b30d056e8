//! What is wrong with a template, and its limits.

/// Longest output of a template, in bytes; longer output is an error.
pub(super) const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of actions and parentheses; deeper templates are refused.
pub(super) const DEPTH_MAX: usize = 64;

/// A template that cannot be parsed or executed; the text is fit for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: format:{line}: {message}")]
pub(crate) struct TemplateError {
    line: usize,
    message: String,
}

impl TemplateError {
    pub(super) fn new(line: usize, message: impl Into<String>) -> TemplateError {
        TemplateError {
            line,
            message: message.into(),
        }
    }
}
