//! Every so many seconds, counted in elapsed time: clock changes are not seen.

/// The longest interval, in seconds: a hundred years.
pub(super) const INTERVAL_MAX: i64 = 36_525 * 86_400;

/// Every `every` seconds from `phase` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// Seconds since 1970 of the time that the others are counted from.
    pub(super) phase: i64,
    /// Seconds, at least 1.
    pub(super) every: i64,
    /// The first fire is `first` intervals after `phase`: 0 when the phase itself was asked for,
    /// 1 when it is only the moment of creation.
    pub(super) first: i64,
}

impl Interval {
    /// The first time after `after`.
    pub(super) fn next_after(&self, after: i64) -> i64 {
        let passed = after.saturating_sub(self.phase).div_euclid(self.every);
        let index = passed.saturating_add(1).max(self.first);
        self.phase.saturating_add(index.saturating_mul(self.every))
    }
}

/// Reads an ISO 8601 duration of weeks, days, hours, minutes and seconds, or plain seconds.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let shape = "an ISO 8601 duration such as \"PT15M\", \"P1D\" or \"P1W\", or whole seconds such \
                 as \"90\" is wanted";
    let text = text.trim();
    let seconds = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        text.parse::<i64>().map_err(|_| too_long())?
    } else if let Some(duration) = text.strip_prefix(['P', 'p']) {
        iso(duration).map_err(|said| format!("{text:?}: {said}; {shape}"))?
    } else {
        let hint = match text.chars().last() {
            Some(unit @ ('s' | 'm' | 'h')) => format!("T{}", as_iso(text, unit)),
            Some(unit @ ('d' | 'w')) => as_iso(text, unit),
            _ => String::new(),
        };
        return Err(match iso(&hint) {
            Ok(_) => format!("{text:?} is no interval; write \"P{hint}\""),
            Err(_) => format!("{text:?} is no interval; {shape}"),
        });
    };
    match seconds {
        0 => Err("an interval must be at least 1 second".to_owned()),
        1..=INTERVAL_MAX => Ok(seconds),
        _ => Err(too_long()),
    }
}

fn as_iso(text: &str, unit: char) -> String {
    format!("{}{}", text.trim_end_matches(unit).trim(), unit.to_ascii_uppercase())
}

fn too_long() -> String {
    format!("an interval must be at most {INTERVAL_MAX} seconds (a hundred years)")
}

/// The part behind `P`. Units come in order, each at most once; the first number may not be missing.
fn iso(duration: &str) -> Result<i64, String> {
    let mut total: i64 = 0;
    let mut number = String::new();
    let mut in_time = false;
    let mut behind = 0;
    for letter in duration.chars() {
        let letter = letter.to_ascii_uppercase();
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let (rank, factor) = match (letter, in_time) {
            ('T', false) if number.is_empty() => {
                in_time = true;
                continue;
            }
            ('Y' | 'M', false) => {
                return Err("years and months differ in length; use schedule_kind \"rrule\" with \
                            FREQ=MONTHLY or FREQ=YEARLY for them"
                    .to_owned());
            }
            ('W', false) => (1, 7 * 86_400),
            ('D', false) => (2, 86_400),
            ('H', true) => (3, 3_600),
            ('M', true) => (4, 60),
            ('S', true) => (5, 1),
            ('.' | ',', _) => return Err("fractions are not taken".to_owned()),
            ('H' | 'S', false) => return Err(format!("\"T\" is missing before {letter:?}")),
            _ => return Err(format!("{letter:?} is not expected here")),
        };
        if rank <= behind {
            return Err(format!("{letter:?} is out of order or doubled"));
        }
        behind = rank;
        let count: i64 = match number.parse() {
            Ok(count) => count,
            Err(_) if number.is_empty() => return Err(format!("no number before {letter:?}")),
            Err(_) => return Err(too_long()),
        };
        number.clear();
        total = count
            .checked_mul(factor)
            .and_then(|more| total.checked_add(more))
            .ok_or_else(too_long)?;
    }
    if !number.is_empty() {
        return Err(format!("{number:?} has no unit"));
    }
    if behind == 0 {
        return Err("no amount is given".to_owned());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_to_the_second() {
        for (text, seconds) in [
            ("PT15M", 900),
            ("P1D", 86_400),
            ("P1W", 604_800),
            ("P1DT2H3M4S", 93_784),
            ("90", 90),
            ("pt1s", 1),
            ("PT36H", 129_600),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn a_wrong_duration_is_answered_with_the_right_form() {
        for (text, words) in [
            ("", "ISO 8601"),
            ("P", "no amount"),
            ("PT", "no amount"),
            ("P1M", "rrule"),
            ("P1Y", "rrule"),
            ("15m", "\"PT15M\""),
            ("2 h", "\"PT2H\""),
            ("P1H", "\"T\" is missing"),
            ("PT1M1H", "out of order"),
            ("PT0S", "at least 1 second"),
            ("0", "at least 1 second"),
            ("PT1.5H", "fractions"),
            ("PT5", "no unit"),
            ("-5", "ISO 8601"),
            ("99999999999999999999", "at most"),
            ("P99999999999999999W", "at most"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn the_next_time_is_after_and_on_the_grid() {
        let hourly = Interval { phase: 100, every: 3600, first: 0 };

        assert_eq!(hourly.next_after(-5_000), 100);
        assert_eq!(hourly.next_after(99), 100);
        assert_eq!(hourly.next_after(100), 3_700);
        assert_eq!(hourly.next_after(100 + 3_600 * 1_000_000), 100 + 3_600 * 1_000_001);
        assert_eq!(Interval { first: 1, ..hourly }.next_after(0), 3_700);
    }
}
