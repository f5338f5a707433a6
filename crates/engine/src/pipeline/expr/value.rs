//! Between JSON and the values of expressions, within limits.

use minijinja::value::{Serde, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::{Map, Number, Value as Json};

use super::engine::{RENDERED_MAX, refused};

/// How deep a value may be nested.
pub const DEPTH_MAX: usize = 100;

/// What expressions see of `json`.
#[must_use]
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::String(text) => Value::from(text.as_str()),
        other => Value::from(Serde(other)),
    }
}

/// The value as JSON.
///
/// # Errors
///
/// When it, or something in it, is undefined or has no place in JSON (an infinite number, bytes, a
/// function); when it is nested deeper than [`DEPTH_MAX`] or larger than [`RENDERED_MAX`].
pub(super) fn to_json(value: &Value) -> Result<Json, Error> {
    let mut left = RENDERED_MAX;
    convert(value, DEPTH_MAX, &mut left)
}

fn take(left: &mut usize, bytes: usize) -> Result<(), Error> {
    *left = left
        .checked_sub(bytes)
        .ok_or_else(|| refused(format!("the result is larger than {RENDERED_MAX} bytes")))?;
    Ok(())
}

fn convert(value: &Value, depth: usize, left: &mut usize) -> Result<Json, Error> {
    let deeper = || {
        depth
            .checked_sub(1)
            .ok_or_else(|| refused(format!("the result is nested deeper than {DEPTH_MAX}")))
    };
    // Every entry costs something, so that a list of nothings is bounded too; a text its length.
    if value.kind() != ValueKind::String {
        take(left, 1)?;
    }
    Ok(match value.kind() {
        ValueKind::Undefined => {
            return Err(Error::new(ErrorKind::UndefinedError, "the result has no value"));
        }
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => Json::Number(number(value)?),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            take(left, text.len())?;
            Json::String(text.to_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let depth = deeper()?;
            let mut list = Vec::new();
            for entry in value.try_iter()?.checked() {
                list.push(convert(&entry?, depth, left)?);
            }
            Json::Array(list)
        }
        ValueKind::Map => {
            let depth = deeper()?;
            let mut map = Map::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let entry = convert(&value.get_item(&key)?, depth, left)?;
                let key = match key.as_str() {
                    Some(text) => text.to_owned(),
                    None if key.is_number() || key.kind() == ValueKind::Bool => key.to_string(),
                    None => return Err(refused("the keys of a map must be texts")),
                };
                take(left, key.len())?;
                map.insert(key, entry);
            }
            Json::Object(map)
        }
        ValueKind::Invalid => return Err(refused(value.to_string())),
        kind => return Err(refused(format!("{kind} has no place in JSON"))),
    })
}

fn number(value: &Value) -> Result<Number, Error> {
    if value.is_integer() {
        if let Some(number) = value.as_i64() {
            return Ok(Number::from(number));
        }
        return u64::try_from(value.clone())
            .map(Number::from)
            .map_err(|_| refused("the number is too large"));
    }
    let number = f64::try_from(value.clone())?;
    Number::from_f64(number).ok_or_else(|| refused("the number is infinite or not a number"))
}

/// Takes the number of values in `value` from `left`.
///
/// # Errors
///
/// When there are more, or they are nested deeper than [`DEPTH_MAX`].
pub(super) fn weigh(value: &Value, left: &mut usize) -> Result<(), Error> {
    weigh_at(value, DEPTH_MAX, left)
}

fn weigh_at(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
    let heavy = || refused("the list or map has too many entries");
    *left = left.checked_sub(1).ok_or_else(heavy)?;
    let is_map = match value.kind() {
        ValueKind::Map => true,
        ValueKind::Seq | ValueKind::Iterable => false,
        _ => return Ok(()),
    };
    // Before walking: a lazy list can be long and cost nothing until then.
    if value.len().is_some_and(|entries| entries > *left) {
        return Err(heavy());
    }
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| refused(format!("the value is nested deeper than {DEPTH_MAX}")))?;
    for entry in value.try_iter()?.checked() {
        let entry = entry?;
        if is_map {
            weigh_at(&value.get_item(&entry)?, depth, left)?;
        } else {
            weigh_at(&entry, depth, left)?;
        }
    }
    Ok(())
}

/// Writes `value` as it stands in a text: a text as it is, everything else as JSON.
pub(super) fn write_text(out: &mut String, value: &Value, limit: usize) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push_str(text),
        None => out.push_str(&to_json(value)?.to_string()),
    }
    if out.len() > limit {
        return Err(refused(format!("the text is longer than {limit} bytes")));
    }
    Ok(())
}

/// Why a value is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// It has so many bytes as JSON without spaces.
    Bytes(usize),
    /// It is nested deeper than [`DEPTH_MAX`]: with what will stand around it, parsers of JSON refuse it
    /// (ours at 128).
    Depth,
}

impl TooMuch {
    /// What it is, as the end of a sentence, where `max_bytes` are allowed.
    #[must_use]
    pub fn told(self, max_bytes: usize) -> String {
        match self {
            Self::Bytes(bytes) => {
                format!("is {bytes} bytes of JSON, more than RUN_DATA_MAX_BYTES ({max_bytes})")
            }
            Self::Depth => format!("is JSON nested deeper than {DEPTH_MAX}"),
        }
    }
}

/// Whether `json` is more than can be kept: longer than `max_bytes`, or too deep.
#[must_use]
pub fn too_much(json: &impl serde::Serialize, max_bytes: usize) -> Option<TooMuch> {
    match measure(json, max_bytes) {
        (_, None) => None,
        (_, Some(TOO_DEEP)) => Some(TooMuch::Depth),
        // How long it is, and whether it is too deep as well.
        _ => match measure(json, usize::MAX) {
            (bytes, None) => Some(TooMuch::Bytes(bytes)),
            _ => Some(TooMuch::Depth),
        },
    }
}

/// How many bytes `json` has when it is written without spaces, as far as it was measured, and why it was not
/// measured to its end.
fn measure(json: &impl serde::Serialize, max_bytes: usize) -> (usize, Option<std::io::ErrorKind>) {
    let mut counter = Counter { bytes: 0, max_bytes };
    let mut writer = serde_json::Serializer::with_formatter(&mut counter, Depth(0));
    let ended = json.serialize(&mut writer);
    let stopped = ended.err().map(|error| error.io_error_kind().unwrap_or(TOO_DEEP));
    (counter.bytes, stopped)
}

/// What the formatter says of values that are too deep.
const TOO_DEEP: std::io::ErrorKind = std::io::ErrorKind::InvalidData;

/// Counts what is written, and stops above `max_bytes`.
struct Counter {
    bytes: usize,
    max_bytes: usize,
}

impl std::io::Write for Counter {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > self.max_bytes {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Stops where a value is nested deeper than [`DEPTH_MAX`].
struct Depth(usize);

impl Depth {
    fn begin<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        sign: &[u8],
    ) -> std::io::Result<()> {
        self.0 += 1;
        if self.0 > DEPTH_MAX { Err(TOO_DEEP.into()) } else { to.write_all(sign) }
    }

    fn end<W: ?Sized + std::io::Write>(&mut self, to: &mut W, sign: &[u8]) -> std::io::Result<()> {
        self.0 -= 1;
        to.write_all(sign)
    }
}

impl serde_json::ser::Formatter for Depth {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        self.begin(to, b"[")
    }

    fn end_array<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        self.end(to, b"]")
    }

    fn begin_object<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        self.begin(to, b"{")
    }

    fn end_object<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        self.end(to, b"}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> Json {
        (0..depth).fold(Json::Null, |inner, _| json!([inner]))
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_told_apart() {
        assert_eq!(too_much(&json!({"a": [1, "ä"]}), 14), None);
        assert_eq!(too_much(&json!({"a": [1, "ä"]}), 13), Some(TooMuch::Bytes(14)));
        assert_eq!(too_much(&nested(DEPTH_MAX), 1_000), None);
        assert_eq!(too_much(&nested(DEPTH_MAX + 1), 1_000), Some(TooMuch::Depth));
        assert_eq!(
            too_much(&json!([nested(3), nested(3)]), 1_000),
            None,
            "side by side is not deep"
        );
        assert_eq!(too_much(&nested(DEPTH_MAX + 1), 10), Some(TooMuch::Depth), "both");
    }
}
