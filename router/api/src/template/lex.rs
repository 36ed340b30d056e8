//! Cutting a template into text and the tokens of its actions.

use super::error::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action { line: usize, tokens: Vec<Token> },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.Name`, without the dot; the bare dot is an empty name.
    Field(String),
    /// `$name`, without the dollar.
    Variable(String),
    Word(String),
    Text(String),
    Number(String),
    Pipe,
    Declare,
    Comma,
    Open,
    Close,
    Space,
}

pub(super) fn lex(template: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut line = 1;
    let mut trim_next = false;
    loop {
        let (text, action) = match rest.split_once("{{") {
            Some((text, action)) => (text, Some(action)),
            None => (rest, None),
        };
        let mut shown = if trim_next { text.trim_start() } else { text };
        if action.is_some_and(trims_left) {
            shown = shown.trim_end();
        }
        if !shown.is_empty() {
            pieces.push(Piece::Text(shown.to_owned()));
        }
        line += text.matches('\n').count();
        let Some(action) = action else {
            return Ok(pieces);
        };
        let body_start = if trims_left(action) {
            &action[1..]
        } else {
            action
        };
        let unclosed = || TemplateError::new(line, "unclosed action");
        let end = action_end(body_start).ok_or_else(unclosed)?;
        let (body, after) = (&body_start[..end], &body_start[end + 2..]);
        let inner = body
            .strip_suffix('-')
            .filter(|b| b.ends_with([' ', '\t', '\n', '\r']));
        trim_next = inner.is_some();
        let inner = inner.unwrap_or(body).trim();
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            pieces.push(Piece::Action {
                line,
                tokens: tokens(inner, line)?,
            });
        }
        line += body.matches('\n').count();
        rest = after;
    }
}

fn trims_left(action: &str) -> bool {
    action
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with([' ', '\t', '\n', '\r']))
}

/// Returns where the closing braces of an action are; those inside quotes and comments do not
/// count.
fn action_end(body: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    if body.trim_start().starts_with("/*") {
        return body
            .find("*/")
            .and_then(|c| body[c..].find("}}").map(|end| c + end));
    }
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), b) if b == open => quote = None,
            (Some(_), _) => {}
            (None, b @ (b'"' | b'`')) => quote = Some(b),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

fn tokens(action: &str, line: usize) -> Result<Vec<Token>, TemplateError> {
    let mut out = Vec::new();
    let mut rest = action;
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            c if c.is_whitespace() => (Token::Space, spaces(rest)),
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '.' => {
                let len = word(&rest[1..]);
                (Token::Field(rest[1..=len].to_owned()), len + 1)
            }
            '$' => {
                let len = word(&rest[1..]);
                (Token::Variable(rest[1..=len].to_owned()), len + 1)
            }
            '"' => quoted(rest, line)?,
            '`' => {
                let end = rest[1..].find('`');
                let end = end.ok_or_else(|| TemplateError::new(line, "unterminated raw string"))?;
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => {
                let body = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.');
                let len = 1 + body.unwrap_or(rest.len() - 1);
                (Token::Number(rest[..len].to_owned()), len)
            }
            c if c.is_alphabetic() || c == '_' => {
                let len = word(rest);
                (Token::Word(rest[..len].to_owned()), len)
            }
            c => {
                let message = format!("unexpected {c:?} in command");
                return Err(TemplateError::new(line, message));
            }
        };
        out.push(token);
        rest = &rest[len..];
    }
    Ok(out)
}

fn spaces(text: &str) -> usize {
    text.find(|c: char| !c.is_whitespace())
        .unwrap_or(text.len())
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

fn quoted(text: &str, line: usize) -> Result<(Token, usize), TemplateError> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(out), at + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(c @ ('"' | '\\' | '\'')) => out.push(c),
                _ => return Err(TemplateError::new(line, "unknown escape in quoted string")),
            },
            c => out.push(c),
        }
    }
    Err(TemplateError::new(line, "unterminated quoted string"))
}
