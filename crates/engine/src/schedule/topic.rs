//! Topics of events and the patterns that choose among them.
//!
//! A topic is words with dots between: `mail.received.invoice`. In a pattern `*` stands for exactly
//! one word and `#`, as the last word only, for whatever follows, also nothing.

/// The longest topic or pattern, in bytes.
pub const TOPIC_MAX: usize = 200;

/// The longest key of an event, in bytes.
pub const EVENT_KEY_MAX: usize = 200;

/// Checks that `key` can be the sender's name of an event.
///
/// # Errors
///
/// What is wrong, as a sentence for the caller.
pub fn check_event_key(key: &str) -> Result<(), String> {
    if (1..=EVENT_KEY_MAX).contains(&key.len()) && !key.contains('\0') {
        return Ok(());
    }
    Err(format!("must have 1 to {EVENT_KEY_MAX} bytes and no NUL, or be null"))
}

/// Checks that `topic` can be published under.
///
/// # Errors
///
/// What is wrong, as a sentence for the caller.
pub fn check_topic(topic: &str) -> Result<(), String> {
    check_length("a topic", topic)?;
    topic.split('.').try_for_each(|word| {
        if matches!(word, "*" | "#") {
            return Err(format!("{word:?} is for patterns; a topic names one thing"));
        }
        check_word(word, topic)
    })
}

/// Checks that `pattern` can be subscribed to.
///
/// # Errors
///
/// What is wrong, as a sentence for the caller.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    check_length("a topic pattern", pattern)?;
    let words: Vec<&str> = pattern.split('.').collect();
    for (index, &word) in words.iter().enumerate() {
        match word {
            "#" if index + 1 < words.len() => {
                return Err("\"#\" stands for the rest of a topic, so it must be the last word; \
                            \"*\" stands for one word anywhere"
                    .to_owned());
            }
            "*" | "#" => {}
            _ => check_word(word, pattern)?,
        }
    }
    Ok(())
}

/// Whether `topic` is among those that `pattern` stands for. Both must have passed their check.
#[must_use]
pub fn topic_matches(pattern: &str, topic: &str) -> bool {
    let mut words = topic.split('.');
    for wanted in pattern.split('.') {
        if wanted == "#" {
            return true;
        }
        match words.next() {
            Some(word) if wanted == "*" || wanted == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

fn check_length(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is wanted: words with dots between, \"mail.received\""));
    }
    if text.len() > TOPIC_MAX {
        return Err(format!("{what} must have at most {TOPIC_MAX} bytes"));
    }
    Ok(())
}

fn check_word(word: &str, whole: &str) -> Result<(), String> {
    if word.is_empty() {
        return Err(format!(
            "{whole:?} has an empty word: one dot between words, none at the ends"
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match word.chars().find(|&c| !plain(c)) {
        None => Ok(()),
        Some('*' | '#') => {
            Err(format!("in {word:?} the wildcard is only part of the word; it must be all of it"))
        }
        Some(other) => Err(format!(
            "{other:?} in {word:?}: words are made of letters, digits, \"_\" and \"-\", with dots \
             between"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_word_and_a_hash_is_the_rest() {
        for (pattern, topic, wanted) in [
            ("mail.received", "mail.received", true),
            ("mail.received", "mail.received.invoice", false),
            ("mail.received", "mail", false),
            ("mail.*", "mail.received", true),
            ("mail.*", "mail", false),
            ("mail.*", "mail.received.invoice", false),
            ("*.received", "mail.received", true),
            ("mail.#", "mail.received.invoice", true),
            ("mail.#", "mail", true),
            ("mail.#", "mailbox", false),
            ("#", "anything.at.all", true),
            ("*.*.#", "mail", false),
            ("*.*.#", "mail.received", true),
            ("Mail.*", "mail.received", false),
        ] {
            assert_eq!(topic_matches(pattern, topic), wanted, "{pattern} {topic}");
        }
    }

    #[test]
    fn a_malformed_pattern_or_topic_is_refused() {
        for pattern in ["", "a..b", ".a", "a.", "#.a", "a.b*", "a b", "a.#.b", "ä"] {
            assert!(check_pattern(pattern).is_err(), "{pattern:?}");
        }
        for topic in ["", "a.*", "a.#", "a/b", &"x".repeat(256)] {
            assert!(check_topic(topic).is_err(), "{topic:?}");
        }
        assert_eq!(check_topic("file.created_2.a-b"), Ok(()));
        assert_eq!(check_pattern("*.b.#"), Ok(()));
    }
}
