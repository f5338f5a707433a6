//! Turns JSON into a type, and serde's words into sentences with a place.
//!
//! serde stops at the first mistake. Here the mistaken field is noted, taken out and the rest read
//! again, so that a person sees all mistakes of a document at once.

use orchestrator_engine::problem::{Problem, nearest, pointer_token};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

/// After so many mistakes nobody reads on.
const MISTAKES_MAX: usize = 20;

/// Reads the whole document, or says everything that is wrong in it.
///
/// # Errors
///
/// The mistakes, at least one.
pub fn exact<T: DeserializeOwned>(value: Value) -> Result<T, Vec<Problem>> {
    match tolerant(value, &[]) {
        (Some(read), problems) if problems.is_empty() => Ok(read),
        (_, problems) => Err(problems),
    }
}

/// Reads as much of the document as can be read, and says what cannot. `stand_ins` are put where a
/// required field of the outermost object is missing or wrong, so that the others can be looked at
/// nevertheless; a number that its type cannot hold is read as the nearest that it can. `None` when
/// not even that helps; then there is at least one problem.
#[must_use]
pub fn tolerant<T: DeserializeOwned>(
    mut value: Value,
    stand_ins: &[(&str, Value)],
) -> (Option<T>, Vec<Problem>) {
    if !value.is_object() {
        let kind = match &value {
            Value::Array(_) => "a list".to_owned(),
            other => other.to_string().chars().take(60).collect(),
        };
        return (None, vec![Problem::new("", format!("is {kind}, but must be an object"))]);
    }
    let mut problems: Vec<Problem> = Vec::new();
    for _ in 0..MISTAKES_MAX {
        let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(read) => return (Some(read), problems),
            Err(error) => error,
        };
        let mut path = tokens(error.path());
        let message = error.inner().to_string();
        let missing = quoted_after(&message, "missing field ");
        if let Some(field) = &missing {
            path.push(field.clone());
        }
        let problem = Problem::new(pointer(&path), sentence(&message));
        if !problems.iter().any(|told| told.pointer == problem.pointer) {
            problems.push(problem);
        }
        if let Some(beyond) = Beyond::of(&message)
            && let Some(place) = value.pointer_mut(&pointer(&path))
        {
            *place = beyond.nearest();
            continue;
        }
        let mended = match (&path[..], missing) {
            ([field], Some(_)) => put_stand_in(&mut value, field, stand_ins),
            (_, Some(_)) => take_out(&mut value, &path[..path.len() - 1]),
            _ => take_out(&mut value, &path),
        };
        if !mended {
            break;
        }
    }
    (None, problems)
}

fn tokens(path: &serde_path_to_error::Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn pointer(path: &[String]) -> String {
    path.iter().flat_map(|token| ["/".to_owned(), pointer_token(token)]).collect()
}

fn put_stand_in(value: &mut Value, field: &str, stand_ins: &[(&str, Value)]) -> bool {
    let stand_in = stand_ins.iter().find(|(name, _)| *name == field);
    match (value.as_object_mut(), stand_in) {
        (Some(object), Some((_, stand_in))) => {
            object.insert(field.to_owned(), stand_in.clone());
            true
        }
        _ => false,
    }
}

/// Takes out the field at `path`, or the nearest one around it: taking out an entry of a list would
/// move the places of those behind it.
fn take_out(value: &mut Value, path: &[String]) -> bool {
    for depth in (1..=path.len()).rev() {
        let around = value.pointer_mut(&pointer(&path[..depth - 1]));
        if let Some(Value::Object(object)) = around {
            return object.remove(&path[depth - 1]).is_some();
        }
    }
    false
}

/// The word in backquotes that follows `lead` at the start of `message`.
fn quoted_after(message: &str, lead: &str) -> Option<String> {
    let rest = message.strip_prefix(lead)?.strip_prefix('`')?;
    Some(rest.split('`').next().unwrap_or_default().to_owned())
}

/// All words in backquotes.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// serde's message in words for a person who has never heard of it.
fn sentence(message: &str) -> String {
    if message.starts_with("missing field") {
        return "is required".to_owned();
    }
    if message.starts_with("unknown field") {
        let words = quoted(message);
        let (given, known) = words.split_first().map_or(("", &[][..]), |(g, k)| (*g, k));
        return format!("there is no field {given:?} here{}", hint(given, known));
    }
    if message.starts_with("unknown variant") {
        let words = quoted(message);
        let (given, known) = words.split_first().map_or(("", &[][..]), |(g, k)| (*g, k));
        return format!("{given:?} is not one of {}{}", known.join(", "), hint(given, known));
    }
    if let Some((given, wanted)) = given_and_wanted(message) {
        let wanted = match Beyond::of(message) {
            Some(Beyond { number, max, .. }) if number > max => {
                format!("a whole number, {max} or less")
            }
            Some(Beyond { min, .. }) => format!("a whole number, {min} or more"),
            None => wanted_words(wanted),
        };
        return format!("is {}, but must be {wanted}", shown(given));
    }
    // chrono's words for a text that is not a time.
    if message.contains("input") {
        return format!("must be a time such as 2026-12-24T08:00:00Z (RFC 3339): {message}");
    }
    message.to_owned()
}

fn given_and_wanted(message: &str) -> Option<(&str, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    rest.rsplit_once(", expected ")
}

/// A whole number that is too small or too large for its type.
struct Beyond {
    number: i128,
    min: i128,
    max: i128,
}

impl Beyond {
    /// What `message` says of one; `None`: it is about something else.
    fn of(message: &str) -> Option<Self> {
        let (given, wanted) = given_and_wanted(message)?;
        let (min, max) = match wanted {
            "u8" => (0, u8::MAX.into()),
            "u16" => (0, u16::MAX.into()),
            "u32" => (0, u32::MAX.into()),
            "u64" | "usize" => (0, u64::MAX.into()),
            "i8" => (i8::MIN.into(), i8::MAX.into()),
            "i16" => (i16::MIN.into(), i16::MAX.into()),
            "i32" => (i32::MIN.into(), i32::MAX.into()),
            "i64" => (i64::MIN.into(), i64::MAX.into()),
            _ => return None,
        };
        if !given.starts_with("integer ") && !given.starts_with("floating point ") {
            return None;
        }
        let text = quoted(given).first().copied()?;
        let farthest = if text.starts_with('-') { i128::MIN } else { i128::MAX };
        let number = if let Ok(number) = text.parse::<i128>() {
            number
        } else {
            // Whole numbers of more than 64 bits are read as fractions: 1e+20.
            let whole = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0)?;
            format!("{whole:.0}").parse().unwrap_or(farthest)
        };
        (number < min || number > max).then_some(Self { number, min, max })
    }

    /// The number nearest to it that its type can hold.
    fn nearest(&self) -> Value {
        let nearest = self.number.clamp(self.min, self.max);
        serde_json::Number::from_i128(nearest).map_or(Value::Null, Value::Number)
    }
}

fn hint(given: &str, known: &[&str]) -> String {
    nearest(given, known.iter().copied())
        .map_or_else(String::new, |near| format!(". Did you mean {near:?}?"))
}

/// What was given, shortened: it may be a whole document.
fn shown(given: &str) -> String {
    let kind = given.split(' ').next().unwrap_or_default();
    match kind {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "null" | "unit" => "null".to_owned(),
        "boolean" => given.replacen("boolean ", "", 1),
        "integer" | "floating" => format!("the number {}", quoted(given).first().unwrap_or(&"")),
        "string" => {
            let text = given.strip_prefix("string ").unwrap_or(given);
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("the text {}…", &text[..end]),
                None => format!("the text {text}"),
            }
        }
        _ => given.to_owned(),
    }
}

fn wanted_words(wanted: &str) -> String {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        _ if wanted.starts_with("struct ") || wanted.starts_with("internally tagged") => {
            "an object".to_owned()
        }
        _ => wanted.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_engine::task::TaskSpec;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let document = json!({
            "titel": "x", "schedule_kind": "crom", "priority": "high", "max_retries": 70000,
            "starts_at": "tomorrow", "exclude": ["2026-12-25", 7],
            "policy": {"overlap": "skipp", "jitter": 1},
        });
        let stand_ins =
            [("title", json!("")), ("schedule_kind", json!("manual")), ("payload", json!({}))];

        let (read, problems) = tolerant::<TaskSpec>(document, &stand_ins);

        assert!(read.is_some());
        let mut told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        told.sort();
        let told = told.join("\n");
        for line in [
            "/titel: there is no field \"titel\" here. Did you mean \"title\"?",
            "/title: is required",
            "/payload: is required",
            "/schedule_kind: \"crom\" is not one of cron, rrule, interval, once, event, condition, \
             manual. Did you mean \"cron\"?",
            "/priority: is the text \"high\", but must be a whole number",
            "/max_retries: is the number 70000, but must be a whole number",
            "/starts_at: must be a time such as 2026-12-24T08:00:00Z (RFC 3339)",
            "/exclude/1: is the number 7, but must be a string",
            "/policy/overlap: \"skipp\" is not one of",
            "/policy/jitter: there is no field \"jitter\" here",
        ] {
            assert!(told.contains(line), "{line}\n-- is not in --\n{told}");
        }
    }

    #[test]
    fn a_number_that_its_type_cannot_hold_is_told_the_limits() {
        for (number, told) in [
            (
                "4294967296",
                "is the number 4294967296, but must be a whole number, 4294967295 or less",
            ),
            ("-1", "is the number -1, but must be a whole number, 0 or more"),
            (
                "100000000000000000000",
                "is the number 1e+20, but must be a whole number, 4294967295 or less",
            ),
            ("1.5", "is the number 1.5, but must be a whole number, 0 or more"),
            ("\"7\"", "is the text \"7\", but must be a whole number, 0 or more"),
        ] {
            let of_task = "\"title\": \"x\", \"schedule_kind\": \"manual\", \"payload\": {}";
            let document = format!("{{{of_task}, \"timeout_seconds\": {number}}}");
            let document = serde_json::from_str(&document).unwrap();

            let problems = exact::<TaskSpec>(document).unwrap_err();

            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(all, [format!("/timeout_seconds: {told}")]);
        }
    }

    #[test]
    fn something_else_than_an_object_is_refused() {
        for (document, told) in [
            (json!([1]), "is a list, but must be an object"),
            (json!("x"), "is \"x\", but must be an object"),
            (json!(null), "is null, but must be an object"),
        ] {
            let problems = exact::<TaskSpec>(document).unwrap_err();
            assert_eq!(problems[0].message, told);
            assert_eq!(problems[0].pointer, "");
        }
    }
}
