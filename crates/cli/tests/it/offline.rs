//! What needs no server.

use crate::system::Place;

#[test]
fn every_verb_says_what_it_does_and_gives_no_wrong_example() {
    let place = Place::new();
    let verbs: &[&[&str]] = &[
        &["apply"],
        &["task"],
        &["task", "list"],
        &["task", "show"],
        &["task", "run"],
        &["task", "snooze"],
        &["task", "next"],
        &["run", "list"],
        &["run", "watch"],
        &["run", "retry"],
        &["event", "publish"],
        &["schedule", "preview"],
        &["tool", "show"],
        &["tool", "call"],
        &["agent", "create"],
        &["agent", "key", "create"],
        &["doctor"],
    ];

    for verb in verbs {
        let args: Vec<_> = verb.iter().copied().chain(["--help"]).collect();
        let help = place.call(&args).expect(0);
        assert!(help.contains("Usage: orchestrator"), "{verb:?}: {help}");
        // The first words of an example are a verb that exists.
        for example in help.lines().filter_map(|line| line.strip_prefix("  orchestrator ")) {
            let said: Vec<_> =
                example.split_whitespace().take_while(|word| verb.contains(word)).collect();
            assert_eq!(&said, verb, "{example}");
        }
    }
}

#[test]
fn a_shell_is_told_all_verbs() {
    let script = Place::new().call(&["completions", "bash"]).expect(0);

    for word in ["apply", "snooze", "watch", "publish", "preview", "revoke", "doctor"] {
        assert!(script.contains(word), "{word}");
    }
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_to_do() {
    let place = Place::new().with("ORCHESTRATOR_URL", "http://127.0.0.1:1");

    let told = place.call(&["task", "list"]).refused(1);

    assert!(told.contains("http://127.0.0.1:1/ is not there"), "{told}");
    assert!(told.contains("orchestrator dev") && told.contains("ORCHESTRATOR_URL"), "{told}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let place = Place::new();

    for args in [
        &["task"][..],
        &["task", "run", "x", "--param", "novalue"],
        &["task", "snooze", "x"],
        &["task", "show", ".."],
        &["run", "list", "--status", "sleeping"],
        &["task", "list", "--limit", "0"],
        &["run", "list", "--limit", "0"],
        &["event", "list", "--limit", "0"],
        &["calendar", "list", "--limit", "0"],
        &["agent", "list", "--limit", "0"],
        &["agent", "list", "--limit", "many"],
        &["run", "cancel"],
        &["run", "retry", "--from-step", "a"],
        &["run", "retry", "x", "--all"],
        &["schedule", "preview", "gibberish"],
        &["tool", "call"],
        &["tool", "call", "core.echo", "--with", "[1]"],
        &["tool", "call", "core.echo", "--with", "{}", "-w", "text=hello"],
        &["tool", "call", "core.echo", "--timeout", "soon"],
        &["agent", "create", "x"],
        &["agent", "list", "--direct"],
        &["apply"],
    ] {
        place.call(args).refused(2);
    }
}

#[test]
fn files_that_are_no_tasks_are_named_and_nothing_is_asked_of_the_server() {
    let place = Place::new().with("ORCHESTRATOR_URL", "http://127.0.0.1:1");
    place.file("tasks/pod.yaml", "kind: Pod\n");
    place.file("tasks/nameless.json", r#"{"schedule_kind": "manual", "title": "Tidy Up"}"#);
    place.file("tasks/broken.yml", "a: [1\n");

    let told = place.call(&["apply", "-f", "tasks"]).refused(1);

    for said in [
        "nothing was changed",
        "tasks/pod.yaml: is not a task: it has no schedule_kind",
        "`name: tidy-up`",
        "tasks/broken.yml: is not YAML",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn doctor_says_of_each_thing_what_to_do_and_fails_without_a_server() {
    let place = Place::new()
        .with("ORCHESTRATOR_URL", "http://127.0.0.1:1")
        .with("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");

    let said = place.call(&["doctor"]);

    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("fail  database"), "{said:?}");
    assert!(said.out.contains("skip  redis"), "{said:?}");
    assert!(said.out.contains("fail  server"), "{said:?}");
    assert!(said.out.contains("orchestrator dev"), "{said:?}");
}

/// A slip in the name of a setting would otherwise be silent: the key is not shown, and nobody says why.
#[test]
fn a_name_that_is_no_setting_is_refused_before_anything_is_asked() {
    let place = Place::new()
        .with("ORCHESTRATOR_URL", "http://127.0.0.1:1")
        .with("ORCHESTRATOR_API_KEI", "orc_mine");

    for args in [
        &["task", "list"][..],
        &["apply", "-f", "none.yaml"],
        &["schedule", "preview", "@daily"],
        &["agent", "list", "--direct"],
        &["migrate"],
        &["doctor"],
    ] {
        let told = place.call(args).refused(2);
        let slip = "ORCHESTRATOR_API_KEI is not a setting; did you mean ORCHESTRATOR_API_KEY?";
        assert!(told.contains(slip), "{args:?}: {told}");
        assert!(!told.contains("orc_mine"), "{told}");
    }
    place.call(&["completions", "bash"]).expect(0);
    place.call(&["--help"]).expect(0);
    // What our scripts read is no slip.
    Place::new()
        .with("ORCHESTRATOR_URL", "http://127.0.0.1:1")
        .with("ORCHESTRATOR_MODE", "prod")
        .call(&["task", "list"])
        .refused(1);
}
