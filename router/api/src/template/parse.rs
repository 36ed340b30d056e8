//! From tokens to a tree of nodes.

use super::error::{DEPTH_MAX, TemplateError};
use super::lex::{Piece, Token};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints the value of a pipeline, unless it only declares a variable.
    Print {
        line: usize,
        pipe: Pipe,
    },
    If {
        line: usize,
        pipe: Pipe,
        then: Vec<Node>,
        other: Vec<Node>,
    },
    With {
        line: usize,
        pipe: Pipe,
        then: Vec<Node>,
        other: Vec<Node>,
    },
    Range {
        line: usize,
        pipe: Pipe,
        then: Vec<Node>,
        other: Vec<Node>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipe {
    /// Variables that the value is assigned to; two only in `range`.
    pub(super) declares: Vec<String>,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Dot,
    /// A chain of fields below the dot.
    Field(Vec<String>),
    /// A variable, and a chain of fields below it.
    Variable(String, Vec<String>),
    Function(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    Group(Pipe, Vec<String>),
}

pub(super) fn parse(pieces: &[Piece]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces, at: 0 };
    match parser.block(0)? {
        (nodes, None) => Ok(nodes),
        (_, Some((line, word, _))) => Err(TemplateError::new(
            line,
            format!("unexpected {{{{{word}}}}}"),
        )),
    }
}

/// The end of a block: its line, `else` or `end`, and the tokens that follow.
type BlockEnd<'a> = Option<(usize, &'a str, &'a [Token])>;

struct Parser<'a> {
    pieces: &'a [Piece],
    at: usize,
}

impl<'a> Parser<'a> {
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, BlockEnd<'a>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            let (line, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action { line, tokens } => (*line, tokens.as_slice()),
            };
            if depth > DEPTH_MAX {
                return Err(TemplateError::new(line, "nested too deeply"));
            }
            match tokens.split_first() {
                Some((Token::Word(word), rest)) if word == "end" || word == "else" => {
                    return Ok((nodes, Some((line, word, rest))));
                }
                Some((Token::Word(word), rest))
                    if matches!(word.as_str(), "if" | "with" | "range") =>
                {
                    nodes.push(self.branch(line, word, rest, depth + 1)?);
                }
                _ => {
                    let pipe = Tokens {
                        line,
                        tokens,
                        depth: 0,
                    }
                    .pipe(1)?;
                    nodes.push(Node::Print { line, pipe });
                }
            }
        }
        Ok((nodes, None))
    }

    fn branch(
        &mut self,
        line: usize,
        word: &str,
        head: &'a [Token],
        depth: usize,
    ) -> Result<Node, TemplateError> {
        let variables = if word == "range" { 2 } else { 1 };
        let pipe = Tokens {
            line,
            tokens: head,
            depth: 0,
        }
        .pipe(variables)?;
        let unended = || TemplateError::new(line, "unexpected EOF: {{end}} missing");
        let (then, end) = self.block(depth)?;
        let (end_line, ended_by, rest) = end.ok_or_else(unended)?;
        let mut other = Vec::new();
        if ended_by == "else" {
            let rest = rest.strip_prefix(&[Token::Space]).unwrap_or(rest);
            if let Some((Token::Word(next), rest)) = rest.split_first() {
                if next != word || word == "range" {
                    return Err(TemplateError::new(end_line, format!("unexpected {next}")));
                }
                other.push(self.branch(end_line, word, rest, depth + 1)?);
            } else {
                let (nodes, end) = self.block(depth)?;
                other = nodes;
                let (end_line, ended_by, _) = end.ok_or_else(unended)?;
                if ended_by != "end" {
                    return Err(TemplateError::new(end_line, "unexpected {{else}}"));
                }
            }
        }
        Ok(match word {
            "if" => Node::If {
                line,
                pipe,
                then,
                other,
            },
            "with" => Node::With {
                line,
                pipe,
                then,
                other,
            },
            _ => Node::Range {
                line,
                pipe,
                then,
                other,
            },
        })
    }
}

struct Tokens<'a> {
    line: usize,
    tokens: &'a [Token],
    depth: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    fn skip_space(&mut self) {
        while let Some((Token::Space, rest)) = self.tokens.split_first() {
            self.tokens = rest;
        }
    }

    fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError::new(self.line, message)
    }

    /// Returns a whole pipeline, with at most `variables` declared in front.
    fn pipe(&mut self, variables: usize) -> Result<Pipe, TemplateError> {
        self.skip_space();
        let declares = self.declarations(variables);
        let mut commands = vec![Vec::new()];
        while let Some(token) = self.next() {
            let operand = match token {
                Token::Space => continue,
                Token::Pipe => {
                    commands.push(Vec::new());
                    continue;
                }
                Token::Close if self.depth > 0 => break,
                token => self.operand(token)?,
            };
            if let Some(command) = commands.last_mut() {
                command.push(operand);
            }
        }
        if commands.iter().any(Vec::is_empty) {
            return Err(self.error("missing value for command"));
        }
        Ok(Pipe { declares, commands })
    }

    fn declarations(&mut self, variables: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut ahead = Tokens {
            line: self.line,
            tokens: self.tokens,
            depth: self.depth,
        };
        while let Some(Token::Variable(name)) = ahead.next() {
            names.push(name);
            ahead.skip_space();
            match ahead.next() {
                Some(Token::Comma) if names.len() < variables => ahead.skip_space(),
                Some(Token::Declare) => {
                    self.tokens = ahead.tokens;
                    return names;
                }
                _ => break,
            }
        }
        Vec::new()
    }

    fn operand(&mut self, token: Token) -> Result<Operand, TemplateError> {
        Ok(match token {
            Token::Field(name) if name.is_empty() => Operand::Dot,
            Token::Field(name) => {
                let mut chain = vec![name];
                chain.extend(self.chain());
                Operand::Field(chain)
            }
            Token::Variable(name) => Operand::Variable(name, self.chain()),
            Token::Text(text) => Operand::Text(text),
            Token::Number(number) => match (number.parse(), number.parse()) {
                (Ok(int), _) => Operand::Int(int),
                (_, Ok(float)) => Operand::Float(float),
                _ => return Err(self.error(format!("bad number syntax: {number:?}"))),
            },
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                _ if super::functions::is_function(&word) => Operand::Function(word),
                _ => return Err(self.error(format!("function {word:?} not defined"))),
            },
            Token::Open => {
                if self.depth >= DEPTH_MAX {
                    return Err(self.error("nested too deeply"));
                }
                self.depth += 1;
                let before = self.tokens.len();
                let pipe = self.pipe(0)?;
                self.depth -= 1;
                let closed = before - self.tokens.len();
                if closed == 0 {
                    return Err(self.error("unclosed left paren"));
                }
                Operand::Group(pipe, self.chain())
            }
            other => return Err(self.error(format!("unexpected {other:?} in command"))),
        })
    }

    /// Fields that follow directly, without a space.
    fn chain(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some((Token::Field(name), rest)) = self.tokens.split_first() {
            if name.is_empty() {
                break;
            }
            names.push(name.clone());
            self.tokens = rest;
        }
        names
    }
}
