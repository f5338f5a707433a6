//! What differs between a task as it is and as it shall be, and how places in one are told.

use orchestrator_engine::problem::pointer_token;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write as _; // writing into a String cannot fail

use crate::output::{plain, short};

/// The longest value shown on one line, in characters.
const VALUE_SHOWN: usize = 72;
/// The most lines shown of a text that has changed.
const LINES_SHOWN: usize = 12;

/// A place at which two documents differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// As people name it: `payload.pipeline[weather].with.url`.
    pub field: String,
    /// What is there; `None`: nothing.
    pub before: Option<Value>,
    /// What shall be there.
    pub after: Option<Value>,
}

/// Where the documents differ, each place once, as deep as it goes. Steps are matched by their ids.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    walk("", Some(before), Some(after), &mut found);
    found
}

fn walk(field: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let field = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
                walk(&field, old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            let (Some(old_ids), Some(new_ids)) = (ids(old), ids(new)) else {
                return by_place(field, old, new, found);
            };
            let kept: Vec<_> = old_ids.iter().filter(|id| new_ids.contains(id)).collect();
            let kept_in_new: Vec<_> = new_ids.iter().filter(|id| old_ids.contains(id)).collect();
            if kept != kept_in_new {
                let order = |ids: &[&str]| Some(Value::from(ids.to_vec()));
                let field = format!("{field} (order)");
                found.push(Change { field, before: order(&old_ids), after: order(&new_ids) });
            }
            let added = new_ids.iter().filter(|id| !old_ids.contains(id));
            for id in old_ids.iter().chain(added) {
                let at = |ids: &[&str]| ids.iter().position(|other| other == id);
                let old = at(&old_ids).map(|index| &old[index]);
                let new = at(&new_ids).map(|index| &new[index]);
                walk(&format!("{field}[{id}]"), old, new, found);
            }
        }
        (before, after) => found.push(Change {
            field: field.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn by_place(field: &str, old: &[Value], new: &[Value], found: &mut Vec<Change>) {
    for index in 0..old.len().max(new.len()) {
        walk(&format!("{field}[{index}]"), old.get(index), new.get(index), found);
    }
}

/// The ids of steps; `None` when not all have one, or two the same.
fn ids(items: &[Value]) -> Option<Vec<&str>> {
    let ids: Vec<_> = items.iter().map(id_of).collect::<Option<_>>()?;
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == ids.len()).then_some(ids)
}

fn id_of(item: &Value) -> Option<&str> {
    item.get("id")?.as_str()
}

/// The RFC 7396 merge patch that turns one into the other. A null inside an object cannot be said in
/// one: it takes the field away instead.
pub fn merge_patch(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(other) => drop(patch.insert(key.clone(), merge_patch(other, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// A JSON pointer as people name the place: `/payload/pipeline/2/with/url` →
/// `payload.pipeline[weather].with.url`, by the ids of the steps in `root`.
pub fn place(pointer: &str, root: &Value) -> String {
    let mut here = Some(root);
    let mut place = String::new();
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        if let Some(Value::Array(items)) = here {
            let item = name.parse::<usize>().ok().and_then(|index| items.get(index));
            let _ = write!(place, "[{}]", item.and_then(id_of).unwrap_or(&name));
            here = item;
        } else {
            if !place.is_empty() {
                place.push('.');
            }
            place += &name;
            here = here.and_then(|here| here.get(&name));
        }
    }
    place
}

/// The pointer to a field of the outermost object.
pub fn pointer(field: &str) -> String {
    format!("/{}", pointer_token(field))
}

/// Changes as people read them, a line each; of texts of several lines, the lines that differ.
pub fn drawn(changes: &[Change]) -> String {
    changes.iter().map(drawn_one).collect()
}

fn drawn_one(change: &Change) -> String {
    let field = &change.field;
    if let (Some(Value::String(before)), Some(Value::String(after))) =
        (&change.before, &change.after)
        && (before.contains('\n') || after.contains('\n'))
    {
        return format!("    {field}:\n{}", lines(before, after));
    }
    match (&change.before, &change.after) {
        (None, Some(after)) => format!("    {field}: + {}\n", value(after)),
        (Some(before), None) => format!("    {field}: - {}\n", value(before)),
        (before, after) => {
            let shown = |side: &Option<Value>| side.as_ref().map_or_else(String::new, value);
            format!("    {field}: {} → {}\n", shown(before), shown(after))
        }
    }
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.is_empty() { "\"\"".to_owned() } else { short(&plain(&text), VALUE_SHOWN) }
}

/// The lines between what both begin and end with.
fn lines(before: &str, after: &str) -> String {
    let old: Vec<_> = before.lines().collect();
    let new: Vec<_> = after.lines().collect();
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = (&old[head..], &new[head..]);
    let tail = rest.0.iter().rev().zip(rest.1.iter().rev()).take_while(|(a, b)| a == b).count();
    let side = |mark: char, lines: &[&str]| {
        let mut drawn = String::new();
        for line in lines.iter().take(LINES_SHOWN) {
            let _ = writeln!(drawn, "      {mark} {}", short(&plain(line), 2 * VALUE_SHOWN));
        }
        if lines.len() > LINES_SHOWN {
            let _ = writeln!(drawn, "      {mark} … {} more lines", lines.len() - LINES_SHOWN);
        }
        drawn
    };
    side('-', &rest.0[..rest.0.len() - tail]) + &side('+', &rest.1[..rest.1.len() - tail])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_that_differs_is_told_once_and_steps_by_their_ids() {
        let before = json!({
            "title": "A", "policy": {"jitter_seconds": 0, "overlap": "skip"}, "exclude": ["2026-12-25"],
            "payload": {"pipeline": [
                {"id": "weather", "with": {"url": "a"}}, {"id": "gone", "uses": "x.y"}]},
        });
        let after = json!({
            "title": "A", "policy": {"jitter_seconds": 60, "overlap": "skip"}, "exclude": [],
            "payload": {"pipeline": [
                {"id": "new", "uses": "x.z"}, {"id": "weather", "with": {"url": "b"}}]},
        });

        let drawn = drawn(&changes(&before, &after));

        let mut lines: Vec<_> = drawn.lines().map(str::trim).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "exclude[0]: - 2026-12-25",
                "payload.pipeline[gone]: - {\"id\":\"gone\",\"uses\":\"x.y\"}",
                "payload.pipeline[new]: + {\"id\":\"new\",\"uses\":\"x.z\"}",
                "payload.pipeline[weather].with.url: a → b",
                "policy.jitter_seconds: 0 → 60",
            ]
        );
        assert_eq!(changes(&after, &after), []);
    }

    #[test]
    fn steps_that_change_places_are_told() {
        let steps = |ids: &[&str]| ids.iter().map(|id| json!({"id": id})).collect::<Value>();

        let found = changes(&steps(&["a", "b", "c"]), &steps(&["b", "a"]));

        let fields: Vec<_> = found.iter().map(|change| &change.field[..]).collect();
        assert_eq!(fields, [" (order)", "[c]"]);
    }

    #[test]
    fn of_a_long_text_the_lines_that_differ_are_shown() {
        let change = Change {
            field: "prompt".to_owned(),
            before: Some(json!("one\ntwo\nthree\n")),
            after: Some(json!("one\n2\n2b\nthree\n")),
        };

        assert_eq!(drawn(&[change]), "    prompt:\n      - two\n      + 2\n      + 2b\n");
    }

    #[test]
    fn a_pointer_becomes_a_place_that_names_the_step() {
        let root = json!({"payload": {"pipeline": [
            {"id": "a"}, {"id": "weather", "with": {"a/b": 1}}, {"uses": "x.y"}]}});

        for (pointer, said) in [
            ("", ""),
            ("/timezone", "timezone"),
            ("/payload/pipeline/1/with/a~1b", "payload.pipeline[weather].with.a/b"),
            ("/payload/pipeline/2/uses", "payload.pipeline[2].uses"),
            ("/payload/pipeline/9/x/0", "payload.pipeline[9].x.0"),
        ] {
            assert_eq!(place(pointer, &root), said, "{pointer}");
        }
    }

    #[test]
    fn a_merge_patch_says_only_what_differs_and_takes_away_what_is_gone() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]});
        let after = json!({"a": 1, "b": {"c": 3}, "e": [1, 2], "f": {"g": 1}});

        assert_eq!(
            merge_patch(&before, &after),
            json!({"b": {"c": 3, "d": null}, "e": [1, 2], "f": {"g": 1}})
        );
    }
}
