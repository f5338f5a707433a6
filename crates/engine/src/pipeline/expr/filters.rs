//! Filters and tests on texts and lists. To add one: write it here, register it in [`add_to`], name
//! it in `engine.rs` and in `docs/pipelines.md`.
//!
//! Those that can make much out of little (`join`, `replace`, `indent` …) look at the size before
//! they allocate; that is why minijinja's own are not used.

use std::num::NonZeroUsize;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lru::LruCache;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, State, Value, filters as builtin};
use regex::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};

use super::engine::{RENDERED_MAX, refused};
use super::value::{from_json, to_json, write_text};

/// The longest regular expression, in bytes.
const PATTERN_MAX: usize = 2_000;
/// How large a compiled regular expression may be, in bytes.
const PATTERN_COMPILED_MAX: usize = 1024 * 1024;
/// How many compiled regular expressions are kept.
const PATTERNS_KEPT: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// The most parts of `batch` and `slice`.
const PARTS_MAX: usize = 10_000;

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_filter("b64", |text: &str| STANDARD.encode(text));
    env.add_filter("b64decode", b64decode);
    env.add_filter("batch", |state: &State, list: Value, count: usize, fill: Option<Value>| {
        few(count)?;
        builtin::batch(state, list, count, fill)
    });
    env.add_filter("slice", |state: &State, list: Value, count: usize, fill: Option<Value>| {
        few(count)?;
        builtin::slice(state, list, count, fill)
    });
    env.add_filter("indent", indent);
    env.add_filter("join", join);
    env.add_filter("json", json);
    env.add_filter("tojson", json);
    env.add_filter("parse_json", parse_json);
    env.add_filter("regex_search", regex_search);
    env.add_filter("regex_findall", regex_findall);
    env.add_filter("regex_replace", regex_replace);
    env.add_filter("replace", replace);
    env.add_filter("sha256", |text: &str| hex::encode(Sha256::digest(text)));
    env.add_filter("slug", slug);
    env.add_filter("string", string);
    env.add_filter("urlencode", urlencode);
    env.add_test("matching", |text: &str, pattern: &str| Ok(regex(pattern)?.is_match(text)));
}

fn few(count: usize) -> Result<(), Error> {
    if count > PARTS_MAX {
        return Err(refused(format!("more than {PARTS_MAX} parts")));
    }
    Ok(())
}

fn short(bytes: usize) -> Result<(), Error> {
    if bytes > RENDERED_MAX {
        return Err(refused(format!("the text is longer than {RENDERED_MAX} bytes")));
    }
    Ok(())
}

fn b64decode(text: &str) -> Result<String, Error> {
    // Senders differ in the alphabet and the padding; nothing is lost by taking all of them.
    let plain: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '=')
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(plain)
        .map_err(|_| refused("b64decode: the text is not base64"))?;
    String::from_utf8(bytes).map_err(|_| refused("b64decode: the result is not a text"))
}

fn indent(text: &str, width: Option<usize>, first: Option<bool>) -> Result<String, Error> {
    let width = width.unwrap_or(4);
    let lines = text.lines().count();
    short(lines.saturating_mul(width).saturating_add(text.len()))?;
    let margin = " ".repeat(width);
    let mut out = String::with_capacity(text.len() + lines * width);
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        if !line.is_empty() && (n > 0 || first == Some(true)) {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(out)
}

#[expect(clippy::needless_pass_by_value, reason = "minijinja hands its arguments over")]
fn join(list: &Value, between: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let attribute: Option<String> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let between = between.unwrap_or_default();
    let mut out = String::new();
    for (n, entry) in list.try_iter()?.checked().enumerate() {
        let mut entry = entry?;
        if let Some(attribute) = &attribute {
            entry = entry.get_attr(attribute)?;
        }
        if n > 0 {
            out.push_str(between);
        }
        write_text(&mut out, &entry, RENDERED_MAX)?;
    }
    Ok(out)
}

fn json(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let json = to_json(value)?;
    let text = match indent {
        None | Some(0) => Ok(json.to_string()),
        Some(_) => serde_json::to_string_pretty(&json).map_err(|error| refused(error.to_string())),
    }?;
    short(text.len())?;
    Ok(text)
}

fn parse_json(text: &str) -> Result<Value, Error> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| refused(format!("parse_json: {error}")))?;
    Ok(from_json(&json))
}

/// The compiled `pattern`. Patterns repeat from run to run and are dear to compile.
pub(super) fn regex(pattern: &str) -> Result<Regex, Error> {
    static KEPT: LazyLock<Mutex<LruCache<String, Regex>>> =
        LazyLock::new(|| Mutex::new(LruCache::new(PATTERNS_KEPT)));
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = kept.get(pattern) {
        return Ok(regex.clone());
    }
    if pattern.len() > PATTERN_MAX {
        return Err(refused(format!("a pattern may have at most {PATTERN_MAX} bytes")));
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_MAX)
        .build()
        .map_err(|error| refused(format!("wrong pattern: {error}")))?;
    kept.put(pattern.to_owned(), regex.clone());
    Ok(regex)
}

/// The first match, or its group `group` (a number or a name); none when there is none.
fn regex_search(text: &str, pattern: &str, group: Option<&Value>) -> Result<Value, Error> {
    let regex = regex(pattern)?;
    let Some(found) = regex.captures(text) else { return Ok(Value::from(())) };
    let part = match group {
        None => found.get(0),
        Some(name) => match (name.as_usize(), name.as_str()) {
            (Some(number), _) if number < found.len() => found.get(number),
            (_, Some(name)) if regex.capture_names().flatten().any(|n| n == name) => {
                found.name(name)
            }
            _ => return Err(refused(format!("the pattern has no group {name}"))),
        },
    };
    Ok(part.map_or_else(|| Value::from(()), |part| Value::from(part.as_str())))
}

fn regex_findall(text: &str, pattern: &str) -> Result<Vec<Value>, Error> {
    Ok(regex(pattern)?.find_iter(text).map(|found| Value::from(found.as_str())).collect())
}

fn regex_replace(text: &str, pattern: &str, with: &str) -> Result<String, Error> {
    let regex = regex(pattern)?;
    let mut out = String::new();
    let mut copied = 0;
    for found in regex.captures_iter(text) {
        let whole = found.get_match();
        out.push_str(&text[copied..whole.start()]);
        found.expand(with, &mut out);
        short(out.len())?;
        copied = whole.end();
    }
    out.push_str(&text[copied..]);
    short(out.len())?;
    Ok(out)
}

fn replace(text: &str, what: &str, with: &str) -> Result<String, Error> {
    let count = text.matches(what).count();
    short(count.saturating_mul(with.len()).saturating_add(text.len()))?;
    Ok(text.replace(what, with))
}

/// Lower-case letters and digits, everything else one `-`.
fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    out
}

fn string(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_text(&mut out, value, RENDERED_MAX)?;
    Ok(out)
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 §2.3).
fn urlencode(value: &Value) -> Result<String, Error> {
    let text = string(value)?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    short(out.len())?;
    Ok(out)
}
