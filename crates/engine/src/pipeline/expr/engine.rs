//! The one environment that all expressions are compiled and evaluated in: which filters, tests and
//! functions there are, and how far an evaluation may go.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use super::{filters, syntax, times, value};

/// How many instructions one evaluation may take.
pub const FUEL: u64 = 200_000;
/// The longest text an expression may make, in bytes; also the largest `with` once it is resolved,
/// as JSON.
pub const RENDERED_MAX: usize = 1024 * 1024;
/// The most values in a list or map, those inside of it included, as often as they occur.
pub const WEIGHT_MAX: usize = 200_000;
/// How many bytes of text one evaluation may handle, all together; an entry of a list counts as
/// [`EFFORT_OF_ENTRY`] bytes.
const EFFORT_MAX: usize = 16 * 1024 * 1024;
const EFFORT_OF_ENTRY: usize = 16;
/// What is smaller than this is not counted: fuel bounds how many there can be.
const EFFORT_FREE: usize = 1_024;

/// What minijinja brings and is kept. `format` is ours; `safe` and `pprint` have no use here.
const KEPT_FILTERS: &[&str] = &[
    "abs",
    "attr",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "groupby",
    "int",
    "items",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "zip",
];
const OWN_FILTERS: &[&str] = &[
    "b64",
    "b64decode",
    "batch",
    "format",
    "in_zone",
    "indent",
    "join",
    "json",
    "minus",
    "parse_json",
    "plus",
    "regex_findall",
    "regex_replace",
    "regex_search",
    "replace",
    "seconds_until",
    "sha256",
    "slice",
    "slug",
    "string",
    "timestamp",
    "tojson",
    "urlencode",
];
const KEPT_TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
];
const OWN_TESTS: &[&str] = &["after", "before", "matching"];
const FUNCTIONS: &[&str] = &["dict", "namespace", "range", "time"];

static FILTERS: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| KEPT_FILTERS.iter().chain(OWN_FILTERS).copied().collect());
static TESTS: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| KEPT_TESTS.iter().chain(OWN_TESTS).copied().collect());

pub(super) fn filters() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().copied()
}

pub(super) fn tests() -> impl Iterator<Item = &'static str> {
    TESTS.iter().copied()
}

pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().copied()
}

pub(super) fn own_tests() -> impl Iterator<Item = &'static str> {
    OWN_TESTS.iter().copied()
}

pub(super) fn is_filter(name: &str) -> bool {
    FILTERS.contains(name)
}

pub(super) fn is_test(name: &str) -> bool {
    TESTS.contains(name)
}

pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_syntax(syntax::SYNTAX.clone());
    env.set_fuel(Some(FUEL));
    // The rewritten source asks for every value that must be there; the rest may be absent.
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_formatter(format_value);
    env.set_debug(false);
    // These show the whole scope, secrets too.
    env.remove_global("debug");
    env.remove_filter("pprint");
    env.remove_filter("safe");
    env.add_function("_need", need);
    env.add_function("_sized", sized);
    env.add_function("_sum", sum);
    env.add_function("_concat", concat);
    filters::add_to(&mut env);
    times::add_to(&mut env);
    env
});

/// What is wrong with the constant argument `text` of a filter or test, if that can be told.
pub(super) fn argument_fault(name: &str, text: &str) -> Option<String> {
    let result = match name {
        "plus" | "minus" => times::parse_duration(text).map(drop).map_err(refused),
        "in_zone" => times::parse_zone(text).map(drop),
        "format" => times::parse_format(text).map(drop),
        "regex_search" | "regex_findall" | "regex_replace" | "matching" => {
            filters::regex(text).map(drop)
        }
        _ => Ok(()),
    };
    result.err().map(|error| error.detail().unwrap_or("wrong argument").to_owned())
}

pub(super) fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `value` itself; an error when it is undefined, or too large to go on with.
fn need(state: &mut State, value: Value, text: &str) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, format!("{text} has no value")))
        }
        ValueKind::Invalid => Err(refused(value.to_string())),
        _ => sized(state, value),
    }
}

/// `value` itself; an error when it is too large to go on with.
///
/// What an operator or a filter does with a value takes time in proportion to its size, and fuel
/// does not count that. So every value is weighed where it enters an operation.
fn sized(state: &mut State, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => {
            let bytes = value.as_str().map_or(0, str::len);
            if bytes > RENDERED_MAX {
                return Err(refused(format!("the text is longer than {RENDERED_MAX} bytes")));
            }
            spend(state, bytes)?;
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let mut left = WEIGHT_MAX;
            value::weigh(&value, &mut left)?;
            let weight = WEIGHT_MAX - left;
            if weight > EFFORT_FREE {
                spend(state, weight * EFFORT_OF_ENTRY)?;
            }
        }
        _ => {}
    }
    Ok(value)
}

/// The sum `value`; one of lists is copied, because minijinja's is a list of lists of lists … and
/// slower with each `+`.
fn sum(state: &mut State, value: Value) -> Result<Value, Error> {
    let value = sized(state, value)?;
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(Value::from(value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?));
    }
    Ok(value)
}

#[expect(clippy::needless_pass_by_value, reason = "minijinja hands its arguments over")]
fn concat(state: &mut State, parts: Rest<Value>) -> Result<String, Error> {
    let mut out = String::new();
    for part in parts.iter() {
        value::write_text(&mut out, part, RENDERED_MAX)?;
    }
    spend(state, out.len())?;
    Ok(out)
}

/// Counts `effort`, in bytes or entries; an error when an evaluation takes too much.
fn spend(state: &mut State, effort: usize) -> Result<(), Error> {
    const KEY: &str = "spent";
    if effort <= EFFORT_FREE {
        return Ok(());
    }
    let spent = state.get_temp(KEY).and_then(|spent| spent.as_usize()).unwrap_or(0) + effort;
    if spent > EFFORT_MAX {
        return Err(refused("the expression handles too much data on its way"));
    }
    state.set_temp(KEY, Value::from(spent));
    Ok(())
}

/// How values are written into a text with blocks.
fn format_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        spend(state, text.len())?;
        return Ok(out.write_str(text)?);
    }
    let mut text = String::new();
    value::write_text(&mut text, value, RENDERED_MAX)?;
    spend(state, text.len())?;
    Ok(out.write_str(&text)?)
}
