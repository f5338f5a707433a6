//! Where in a text the expressions are.
//!
//! A text is taken apart into literal pieces and `${…}` expressions. One with `{% … %}` blocks or
//! comments cannot be: it is handed on whole. `$${` is a literal `${`.

use std::sync::LazyLock;

use minijinja::machinery::{Token, Tokenizer};
use minijinja::syntax::SyntaxConfig;

/// The longest text with expressions, in bytes.
pub const TEXT_MAX: usize = 64 * 1024;
/// The most tokens in one `${…}` or `{% … %}`. It bounds how deep a syntax tree can grow, and with
/// it the stack that walking the tree takes.
pub const TOKENS_MAX: usize = 1_000;
/// How deep brackets of any kind may stand in each other, for the same reason.
pub const BRACKETS_MAX: usize = 24;
/// The most `{% … %}` tags in one text, for the same reason.
pub const TAGS_MAX: usize = 200;

/// A mistake in a text, and the byte where it is, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset in the text.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    pub(super) fn at(at: usize, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }

    /// The sentence for people: with the place, counted as an editor counts.
    #[must_use]
    pub fn describe(&self, text: &str) -> String {
        let Some(before) = self.at.and_then(|at| text.get(..at)) else {
            return self.message.clone();
        };
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count() + 1;
        if text.contains('\n') {
            let line = before.matches('\n').count() + 1;
            format!("line {line}, character {column}: {}", self.message)
        } else {
            format!("character {column}: {}", self.message)
        }
    }
}

/// A part of a text without blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    /// The source between `${` and `}`, and where it begins.
    Expression {
        source: String,
        at: usize,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Pieces(Vec<Piece>),
    /// The text with every `$${` written as an expression that gives `${`.
    Blocks(Blocks),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) source: String,
    /// Offsets in `source`, each with the bytes that were put in before it.
    shifts: Vec<(usize, usize)>,
}

impl Blocks {
    /// The place in the text as it was written.
    pub(super) fn original(&self, at: usize) -> usize {
        let added: usize =
            self.shifts.iter().take_while(|(from, _)| *from < at).map(|(_, bytes)| bytes).sum();
        at.saturating_sub(added)
    }
}

/// Jinja with `${`/`}` for values; blocks and comments as usual.
pub(super) static SYNTAX: LazyLock<SyntaxConfig> = LazyLock::new(|| {
    SyntaxConfig::builder()
        .variable_delimiters("${", "}")
        .keep_trailing_newline(true)
        .build()
        .expect("the delimiters differ from each other")
});

/// Whether there is anything in `text` to evaluate or to unescape.
pub(super) fn is_plain(text: &str) -> bool {
    !["${", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// Takes `text` apart.
pub(super) fn split(text: &str) -> Result<Shape, Fault> {
    if text.len() > TEXT_MAX {
        return Err(Fault {
            at: None,
            message: format!("a text with expressions may have at most {TEXT_MAX} bytes"),
        });
    }
    if is_plain(text) {
        return Ok(Shape::Pieces(vec![Piece::Literal(text.to_owned())]));
    }
    Splitter::new(text).run()
}

struct Splitter<'t> {
    text: &'t str,
    pieces: Vec<Piece>,
    literal: String,
    blocks: Blocks,
    has_blocks: bool,
    /// Up to here the text is in `pieces` and `literal`.
    done: usize,
    /// Up to here the text is in `blocks.source`.
    copied: usize,
    tags: usize,
}

impl<'t> Splitter<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            pieces: Vec::new(),
            literal: String::new(),
            blocks: Blocks::default(),
            has_blocks: text.contains("{%") || text.contains("{#"),
            done: 0,
            copied: 0,
            tags: 0,
        }
    }

    fn run(mut self) -> Result<Shape, Fault> {
        let mut from = 0;
        while let Some(escape_end) = self.tokenize(from)? {
            from = escape_end;
        }
        if self.has_blocks {
            self.blocks.source.push_str(&self.text[self.copied..]);
            return Ok(Shape::Blocks(self.blocks));
        }
        self.literal.push_str(&self.text[self.done..]);
        self.end_literal();
        Ok(Shape::Pieces(self.pieces))
    }

    /// Reads on `from` there to the end, or to the end of an escaped `$${`, which is returned.
    fn tokenize(&mut self, from: usize) -> Result<Option<usize>, Fault> {
        let mut tokens = Tokenizer::new(&self.text[from..], "text", false, SYNTAX.clone());
        let mut open = None;
        let mut length = 0;
        let mut depth = 0_usize;
        loop {
            let next = tokens.next_token().map_err(|error| self.unreadable(from, open, &error))?;
            let Some((token, span)) = next else { break };
            let start = from + span.start_offset as usize;
            match token {
                Token::VariableStart if self.is_escaped(start) => {
                    self.escape(start);
                    return Ok(Some(start + 2));
                }
                Token::VariableStart => {
                    self.open_expression(start);
                    open = Some(start);
                    (length, depth) = (0, 0);
                }
                Token::VariableEnd => {
                    self.close_expression(from + span.end_offset as usize);
                    open = None;
                }
                Token::BlockStart => {
                    open = Some(start);
                    (length, depth) = (0, 0);
                    self.tags += 1;
                    if self.tags > TAGS_MAX {
                        return Err(Fault::at(start, format!("more than {TAGS_MAX} tags")));
                    }
                }
                Token::BlockEnd => open = None,
                Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                    length += 1;
                    depth += 1;
                }
                Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                    length += 1;
                    depth = depth.saturating_sub(1);
                }
                _ => length += 1,
            }
            if depth > BRACKETS_MAX {
                let message = format!("brackets are nested deeper than {BRACKETS_MAX}");
                return Err(Fault::at(start, message));
            }
            if length > TOKENS_MAX {
                return Err(Fault::at(start, "the expression is too long"));
            }
        }
        match open {
            Some(start) => Err(Fault::at(start, "an expression begins here and does not end")),
            None => Ok(None),
        }
    }

    fn unreadable(&self, from: usize, open: Option<usize>, error: &minijinja::Error) -> Fault {
        let at = error.range().map(|range| from + range.start).or(open);
        Fault {
            at: at.filter(|at| *at <= self.text.len()),
            message: error.detail().unwrap_or("cannot be read").to_owned(),
        }
    }

    fn is_escaped(&self, start: usize) -> bool {
        start > self.done && self.text[..start].ends_with('$')
    }

    fn escape(&mut self, start: usize) {
        const LITERAL: &str = "${'${'}";
        self.literal.push_str(&self.text[self.done..start - 1]);
        self.literal.push_str("${");
        self.blocks.source.push_str(&self.text[self.copied..start - 1]);
        self.blocks.source.push_str(LITERAL);
        self.blocks.shifts.push((self.blocks.source.len(), LITERAL.len() - "$${".len()));
        self.done = start + 2;
        self.copied = start + 2;
    }

    fn open_expression(&mut self, start: usize) {
        self.literal.push_str(&self.text[self.done..start]);
        self.end_literal();
        self.done = start + 2;
        // `${-x}` is minus x: Jinja would take the sign for whitespace control.
        if self.text[self.done..].starts_with(['-', '+']) {
            self.blocks.source.push_str(&self.text[self.copied..self.done]);
            self.blocks.source.push(' ');
            self.blocks.shifts.push((self.blocks.source.len(), 1));
            self.copied = self.done;
        }
    }

    fn close_expression(&mut self, end: usize) {
        let source = self.text[self.done..end - 1].to_owned();
        self.pieces.push(Piece::Expression { source, at: self.done });
        self.done = end;
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            self.pieces.push(Piece::Literal(std::mem::take(&mut self.literal)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<String> {
        match split(text).expect("a good text") {
            Shape::Pieces(pieces) => pieces
                .into_iter()
                .map(|piece| match piece {
                    Piece::Literal(text) => format!("'{text}'"),
                    Piece::Expression { source, at } => format!("{at}:{source}"),
                })
                .collect(),
            Shape::Blocks(blocks) => vec![format!("blocks {}", blocks.source)],
        }
    }

    #[test]
    fn a_text_is_taken_apart_at_its_expressions() {
        let cases = [
            ("plain", vec!["'plain'"], "nothing to do"),
            ("${a}", vec!["2:a"], "one expression"),
            ("x ${a} y${b}", vec!["'x '", "4:a", "' y'", "10:b"], "several"),
            ("a $${b} ${c}", vec!["'a ${b} '", "10:c"], "an escaped one"),
            ("${a}$${b}", vec!["2:a", "'${b}'"], "an escape right behind an expression"),
            ("${'$${'}", vec!["2:'$${'"], "no escapes inside an expression"),
            ("${'}'}!", vec!["2:'}'", "'!'"], "a brace in a string"),
            ("${ {'a': {'b': 1}} }", vec!["2: {'a': {'b': 1}} "], "braces of dicts"),
            ("x ${-a}", vec!["'x '", "4:-a"], "a sign is a sign"),
            ("{{ a }} $5 100%", vec!["'{{ a }} $5 100%'"], "other languages' marks are text"),
            ("ä${a}", vec!["'ä'", "4:a"], "offsets are bytes"),
            (
                "{% if a %}$${x}${-b}{% endif %}",
                vec!["blocks {% if a %}${'${'}x}${ -b}{% endif %}"],
                "blocks stay whole",
            ),
            ("{% raw %}${x}{% endraw %}", vec!["blocks {% raw %}${x}{% endraw %}"], "raw is left"),
        ];
        for (text, expected, why) in cases {
            assert_eq!(pieces(text), expected, "{why}");
        }
    }

    #[test]
    fn an_expression_that_does_not_end_is_pointed_at() {
        let fault = split("hello ${ name").expect_err("no end");
        assert_eq!(
            fault.describe("hello ${ name"),
            "character 7: an expression begins here and does not end"
        );
    }

    #[test]
    fn an_expression_at_the_limit_of_tokens_is_read_and_one_above_is_not() {
        let of = |tokens: usize| format!("${{{}}}", vec!["1"; tokens.div_ceil(2)].join("+"));
        assert!(split(&of(TOKENS_MAX - 1)).is_ok());
        assert!(split(&of(TOKENS_MAX + 1)).is_err());
    }
}
