//! Reading what files declare: YAML or JSON, any number of tasks in each.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// A task as a file declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Where it stands: the file, and which task of it where there are several.
    pub place: String,
    /// Its name.
    pub name: String,
    /// All that is said of it.
    pub fields: Map<String, Value>,
}

/// All that is declared, and what is wrong with the files, a sentence each.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// In the order of the files.
    pub tasks: Vec<Declared>,
    /// Nothing should be done while there is one.
    pub problems: Vec<String>,
}

/// Reads files, folders (every `.yaml`, `.yml` and `.json` directly in them; with `recursive` below
/// them too) and, for `-`, standard input.
///
/// # Errors
///
/// When a path is not there or cannot be read.
pub fn read(paths: &[PathBuf], recursive: bool) -> Result<Found, Failure> {
    let mut found = Found::default();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(Failure::while_doing("read standard input"))?;
            take("standard input", &text, false, &mut found);
            continue;
        }
        let mut files = Vec::new();
        gather(path, recursive, true, &mut files)?;
        if files.is_empty() {
            found.problems.push(format!("{}: no .yaml, .yml or .json file in it", path.display()));
        }
        for file in files {
            let text = std::fs::read_to_string(&file)
                .map_err(Failure::while_doing(format!("read {}", file.display())))?;
            let is_json = file.extension().is_some_and(|extension| extension == "json");
            take(&file.display().to_string(), &text, is_json, &mut found);
        }
    }
    name_each_once(&mut found);
    Ok(found)
}

fn gather(
    path: &Path,
    recursive: bool,
    is_named: bool,
    files: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let reading = || format!("read {}", path.display());
    if !path.metadata().map_err(Failure::while_doing(reading()))?.is_dir() {
        let known = ["yaml", "yml", "json"];
        let extension = path.extension().and_then(|extension| extension.to_str());
        if is_named || extension.is_some_and(|extension| known.contains(&extension)) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    if !is_named && !recursive {
        return Ok(());
    }
    let entries = path.read_dir().map_err(Failure::while_doing(reading()))?;
    let mut inside = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::while_doing(reading()))?;
    inside.sort();
    inside.iter().try_for_each(|path| gather(path, recursive, false, files))
}

/// Adds what the text of a file declares.
fn take(file: &str, text: &str, is_json: bool, found: &mut Found) {
    let documents = match documents(text, is_json) {
        Ok(documents) => documents,
        Err(error) => {
            found.problems.push(format!("{file}: {error}"));
            return;
        }
    };
    let listed = documents.into_iter().flat_map(|document| match document {
        Value::Array(listed) => listed,
        Value::Null => Vec::new(),
        one => vec![one],
    });
    let declared: Vec<_> = listed.collect();
    if declared.is_empty() {
        found.problems.push(format!("{file}: nothing is declared in it"));
    }
    let several = declared.len() > 1;
    for (index, value) in declared.into_iter().enumerate() {
        let place = if several { format!("{file} ({})", index + 1) } else { file.to_owned() };
        match as_task(place, value) {
            Ok(task) => found.tasks.push(task),
            Err(problem) => found.problems.push(problem),
        }
    }
}

fn documents(text: &str, is_json: bool) -> Result<Vec<Value>, String> {
    if is_json {
        let all = serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>();
        return all.map_err(|error| format!("is not JSON: {error}"));
    }
    serde_norway::Deserializer::from_str(text)
        .map(|document| {
            let mut value = serde_norway::Value::deserialize(document)?;
            value.apply_merge()?;
            serde_json::to_value(value).map_err(serde::de::Error::custom)
        })
        .collect::<Result<_, serde_norway::Error>>()
        .map_err(|error| format!("is not YAML: {error}"))
}

fn as_task(place: String, value: Value) -> Result<Declared, String> {
    let Value::Object(fields) = value else {
        return Err(format!("{place}: is not a task, but {}", kind_of(&value)));
    };
    if !fields.contains_key("schedule_kind") {
        return Err(format!("{place}: is not a task: it has no schedule_kind"));
    }
    match fields.get("name") {
        Some(Value::String(name)) if !name.is_empty() => {
            Ok(Declared { place, name: name.clone(), fields })
        }
        None | Some(Value::Null) => {
            let title = fields.get("title").and_then(Value::as_str).unwrap_or_default();
            let slug = slug(title);
            let hint = if slug.is_empty() { "morning-briefing" } else { &slug };
            Err(format!(
                "{place}: has no name; apply finds tasks again by their names, so add one, such as \
                 `name: {hint}`"
            ))
        }
        Some(other) => Err(format!("{place}: its name must be a text, not {}", kind_of(other))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `Weekday Morning Briefing` → `weekday-morning-briefing`.
fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

fn name_each_once(found: &mut Found) {
    let mut problems = Vec::new();
    for (index, task) in found.tasks.iter().enumerate() {
        let same = |other: &&Declared| {
            other.name == task.name
                && other.fields.get("created_by") == task.fields.get("created_by")
        };
        if let Some(first) = found.tasks[..index].iter().find(same) {
            problems.push(format!(
                "{}: its name, {}, is that of the task in {}",
                task.place, task.name, first.place
            ));
        }
    }
    found.problems.extend(problems);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Found {
        let mut found = Found::default();
        take("f.yaml", text, false, &mut found);
        name_each_once(&mut found);
        found
    }

    #[test]
    fn a_file_may_declare_several_tasks_as_documents_or_as_a_list() {
        let found = read_text(
            "name: a\nschedule_kind: manual\n---\n- {name: b, schedule_kind: manual}\n\
             - {name: c, schedule_kind: manual}\n---\n# nothing here\n",
        );

        let names: Vec<_> =
            found.tasks.iter().map(|task| (&task.name[..], &task.place[..])).collect();
        assert_eq!(names, [("a", "f.yaml (1)"), ("b", "f.yaml (2)"), ("c", "f.yaml (3)")]);
        assert_eq!(found.problems, [""; 0]);
    }

    #[test]
    fn an_anchor_is_merged_as_people_know_it() {
        let found = read_text(
            "base: &base {title: T}\nschedule_kind: manual\nname: a\npayload: {<<: *base, x: 1}\n",
        );

        assert_eq!(found.tasks[0].fields["payload"], serde_json::json!({"title": "T", "x": 1}));
    }

    #[test]
    fn what_is_no_task_is_named_and_refused() {
        for (text, said) in [
            ("kind: Pod\n", "f.yaml: is not a task: it has no schedule_kind"),
            ("just words\n", "f.yaml: is not a task, but a text"),
            ("a: [1\n", "f.yaml: is not YAML: "),
            ("", "f.yaml: nothing is declared in it"),
            ("schedule_kind: cron\ntitle: Tidy Up!\n", "such as `name: tidy-up`"),
            (
                "{name: a, schedule_kind: manual}\n---\n{name: a, schedule_kind: cron}\n",
                "f.yaml (2): its name, a, is that of the task in f.yaml (1)",
            ),
        ] {
            let found = read_text(text);
            assert!(found.problems.iter().any(|told| told.contains(said)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_folder_stands_for_the_files_in_it_and_on_demand_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let task = |name: &str| format!("{{\"name\": \"{name}\", \"schedule_kind\": \"manual\"}}");
        std::fs::write(folder.path().join("b.yml"), task("b")).unwrap();
        std::fs::write(folder.path().join("a.json"), task("a")).unwrap();
        std::fs::write(folder.path().join("README.md"), "no task").unwrap();
        std::fs::create_dir(folder.path().join("more")).unwrap();
        std::fs::write(folder.path().join("more/c.yaml"), task("c")).unwrap();
        let names = |recursive| {
            let found = read(&[folder.path().to_owned()], recursive).unwrap();
            found.tasks.into_iter().map(|task| task.name).collect::<Vec<_>>()
        };

        assert_eq!(names(false), ["a", "b"]);
        assert_eq!(names(true), ["a", "b", "c"]);
        assert!(read(&[folder.path().join("none")], false).is_err());
    }
}
