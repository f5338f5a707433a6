//! Expressions: Jinja with `${ … }` around values.
//!
//! A [`Text`] is compiled once and evaluated many times. One that is a single `${…}` gives a value
//! of any type; any other gives a text. What may be named in it ([`Use`]) is checked by whoever
//! compiles it; what it can see when it is evaluated is a [`Scope`](super::Scope).

mod engine;
mod filters;
mod rewrite;
mod statements;
mod syntax;
mod times;
mod value;

use minijinja::machinery::{parse, parse_expr};
use minijinja::{Environment, Expression, Value};
use serde_json::Value as Json;

pub use engine::{FUEL, RENDERED_MAX, WEIGHT_MAX};
pub use rewrite::{ROOTS, Use};
pub use syntax::{BRACKETS_MAX, Fault, TAGS_MAX, TEXT_MAX, TOKENS_MAX};
pub use times::{parse_duration, print_utc};
pub use value::{DEPTH_MAX, TooMuch, from_json, too_much};

use rewrite::Rewriter;
use syntax::{Piece, Shape};

/// A compiled text.
#[derive(Debug)]
pub struct Text(Kind);

#[derive(Debug)]
enum Kind {
    /// No expression in it.
    Plain(String),
    /// One `${…}` and nothing else.
    Single(Compiled),
    /// Expressions and literal text.
    Mixed(Vec<Part>),
    /// With `{% … %}`: the environment holds it as its only template.
    Blocks(Box<Environment<'static>>),
}

#[derive(Debug)]
enum Part {
    Literal(String),
    Value(Compiled),
}

struct Compiled {
    expression: Expression<'static, 'static>,
    /// What the person wrote, for messages.
    source: String,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

/// Why an expression gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expression}: {message}")]
pub struct EvalError {
    /// What the person wrote.
    pub expression: String,
    /// What went wrong.
    pub message: String,
}

/// The name of the one template in an environment of [`Kind::Blocks`].
const TEMPLATE: &str = "text";
/// How much of an expression is repeated in a message, in characters.
const QUOTED_MAX: usize = 120;

/// Whether `text` has nothing to evaluate.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    syntax::is_plain(text)
}

/// Compiles a condition that stands by itself, such as the filter of an event subscription: one
/// `${…}`, in which only the names `roots` have a value.
///
/// # Errors
///
/// Everything that is wrong with it, each in a sentence with its place.
pub fn compile_condition(text: &str, roots: &[&str]) -> Result<Text, Vec<String>> {
    let (compiled, uses) = Text::compile(text)
        .map_err(|faults| faults.iter().map(|fault| fault.describe(text)).collect::<Vec<_>>())?;
    if !compiled.is_single() {
        return Err(vec!["must be one expression in ${…}".to_owned()]);
    }
    let faults: Vec<_> = uses
        .iter()
        .filter(|name| !roots.contains(&name.root.as_str()))
        .map(|name| {
            let message = format!("{} has no value here, only {}", name.root, roots.join(", "));
            Fault { at: Some(name.at), message }.describe(text)
        })
        .collect();
    if faults.is_empty() { Ok(compiled) } else { Err(faults) }
}

/// The filters and functions there are, and our own tests.
pub fn vocabulary() -> impl Iterator<Item = &'static str> {
    engine::filters().chain(engine::functions()).chain(engine::own_tests())
}

impl Text {
    /// Compiles `text`; also returns the names it reads, at byte offsets in `text`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, by itself: syntax, size, unknown filters, tests, functions
    /// and names that are never in scope. Whether the names it reads are in scope *here* is for the
    /// caller to check.
    pub fn compile(text: &str) -> Result<(Self, Vec<Use>), Vec<Fault>> {
        match syntax::split(text).map_err(|fault| vec![fault])? {
            Shape::Blocks(blocks) => compile_blocks(&blocks),
            Shape::Pieces(pieces) => compile_pieces(pieces),
        }
    }

    /// Whether it is one `${…}` and nothing else, so that it can give any type of value.
    #[must_use]
    pub fn is_single(&self) -> bool {
        matches!(self.0, Kind::Single(_))
    }

    /// The text itself when nothing in it is to be evaluated, `$${` already read.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match &self.0 {
            Kind::Plain(text) => Some(text),
            _ => None,
        }
    }

    /// Its value in `scope`.
    ///
    /// # Errors
    ///
    /// [`EvalError`], which names the expression.
    pub fn value(&self, scope: &Value) -> Result<Json, EvalError> {
        match &self.0 {
            Kind::Single(compiled) => {
                let value = compiled.eval(scope)?;
                value::to_json(&value).map_err(|error| compiled.error(&error))
            }
            _ => self.render(scope).map(Json::String),
        }
    }

    /// Whether its value counts as true: not false, none, zero or empty.
    ///
    /// # Errors
    ///
    /// [`EvalError`], which names the expression.
    pub fn is_true(&self, scope: &Value) -> Result<bool, EvalError> {
        match &self.0 {
            Kind::Single(compiled) => {
                let value = compiled.eval(scope)?;
                if value.is_undefined() {
                    return Err(compiled.error(&engine::refused("the result has no value")));
                }
                Ok(value.is_true())
            }
            _ => Ok(!self.render(scope)?.is_empty()),
        }
    }

    fn render(&self, scope: &Value) -> Result<String, EvalError> {
        match &self.0 {
            Kind::Plain(text) => Ok(text.clone()),
            Kind::Single(compiled) => {
                let mut out = String::new();
                compiled.write(&mut out, scope)?;
                Ok(out)
            }
            Kind::Mixed(parts) => {
                let mut out = String::new();
                for part in parts {
                    match part {
                        Part::Literal(text) => out.push_str(text),
                        Part::Value(compiled) => compiled.write(&mut out, scope)?,
                    }
                }
                Ok(out)
            }
            Kind::Blocks(env) => render_blocks(env, scope),
        }
    }
}

impl Compiled {
    fn eval(&self, scope: &Value) -> Result<Value, EvalError> {
        unpanicked(|| self.expression.eval(scope.clone())).map_err(|error| self.error(&error))
    }

    fn write(&self, out: &mut String, scope: &Value) -> Result<(), EvalError> {
        let value = self.eval(scope)?;
        value::write_text(out, &value, RENDERED_MAX).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &minijinja::Error) -> EvalError {
        let mut quoted: String = self.source.trim().chars().take(QUOTED_MAX).collect();
        if quoted.len() < self.source.trim().len() {
            quoted.push('…');
        }
        EvalError { expression: format!("${{{quoted}}}"), message: explain(error) }
    }
}

/// What `evaluate` says; an arithmetic panic in it (`5 is divisibleby(0)`) is the expression's own mistake.
fn unpanicked<T>(
    evaluate: impl FnOnce() -> Result<T, minijinja::Error>,
) -> Result<T, minijinja::Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(evaluate)).unwrap_or_else(|_| {
        Err(engine::refused("it cannot be worked out: is something divided by zero?"))
    })
}

fn render_blocks(env: &Environment<'static>, scope: &Value) -> Result<String, EvalError> {
    let wrong = |error: &minijinja::Error| EvalError {
        expression: "text with blocks".to_owned(),
        message: explain(error),
    };
    let template = env.get_template(TEMPLATE).map_err(|error| wrong(&error))?;
    // Every piece that is written goes through our formatter, which bounds the sum.
    let text = unpanicked(|| template.render(scope.clone())).map_err(|error| wrong(&error))?;
    if text.len() > RENDERED_MAX {
        return Err(wrong(&engine::refused(format!(
            "the text is longer than {RENDERED_MAX} bytes"
        ))));
    }
    Ok(text)
}

/// What minijinja says, without the places in the rewritten source.
fn explain(error: &minijinja::Error) -> String {
    use minijinja::ErrorKind;
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it takes more than {FUEL} steps to evaluate"),
        (ErrorKind::InvalidOperation | ErrorKind::UndefinedError, Some(detail)) => {
            detail.to_owned()
        }
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

fn compile_pieces(pieces: Vec<Piece>) -> Result<(Text, Vec<Use>), Vec<Fault>> {
    let mut uses = Vec::new();
    let mut faults = Vec::new();
    let mut parts = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Literal(text) => parts.push(Part::Literal(text)),
            Piece::Expression { source, at } => match compile_expression(source, at, &mut uses) {
                Ok(compiled) => parts.push(Part::Value(compiled)),
                Err(mut found) => faults.append(&mut found),
            },
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let kind = match parts.as_mut_slice() {
        [] => Kind::Plain(String::new()),
        [Part::Literal(text)] => Kind::Plain(std::mem::take(text)),
        [Part::Value(_)] => match parts.pop() {
            Some(Part::Value(compiled)) => Kind::Single(compiled),
            _ => Kind::Mixed(parts),
        },
        _ => Kind::Mixed(parts),
    };
    Ok((Text(kind), uses))
}

fn compile_expression(
    source: String,
    at: usize,
    uses: &mut Vec<Use>,
) -> Result<Compiled, Vec<Fault>> {
    let start = at + source.len() - source.trim_start().len();
    if source.trim().is_empty() {
        return Err(vec![Fault::at(at, "the expression is empty")]);
    }
    let tree = parse_expr(&source).map_err(|error| {
        let place = error.range().map_or(start, |range| at + range.start.min(source.len()));
        vec![Fault::at(place, syntax_message(&error))]
    })?;
    let mut rewriter = Rewriter::new();
    rewriter.expr(&tree);
    let Rewriter { out, uses: found, mut faults, .. } = rewriter;
    if !faults.is_empty() {
        for fault in &mut faults {
            fault.at = fault.at.map(|place| place + at);
        }
        return Err(faults);
    }
    uses.extend(found.into_iter().map(|mut name| {
        name.at += at;
        name
    }));
    let expression = engine::ENVIRONMENT
        .compile_expression_owned(out)
        .map_err(|error| vec![Fault::at(start, syntax_message(&error))])?;
    Ok(Compiled { expression, source })
}

fn compile_blocks(blocks: &syntax::Blocks) -> Result<(Text, Vec<Use>), Vec<Fault>> {
    let tree = parse(&blocks.source, TEMPLATE, syntax::SYNTAX.clone()).map_err(|error| {
        let at = error.range().map(|range| blocks.original(range.start));
        vec![Fault { at, message: syntax_message(&error) }]
    })?;
    let mut rewriter = Rewriter::new();
    rewriter.stmts(std::slice::from_ref(&tree));
    let Rewriter { out, mut uses, mut faults, .. } = rewriter;
    if !faults.is_empty() {
        for fault in &mut faults {
            fault.at = fault.at.map(|at| blocks.original(at));
        }
        return Err(faults);
    }
    for name in &mut uses {
        name.at = blocks.original(name.at);
    }
    let mut env = Box::new(engine::ENVIRONMENT.clone());
    env.add_template_owned(TEMPLATE, out)
        .map_err(|error| vec![Fault { at: None, message: syntax_message(&error) }])?;
    Ok((Text(Kind::Blocks(env)), uses))
}

fn syntax_message(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
