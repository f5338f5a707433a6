//! Reading files as calendar programs and authorities write them, and as nobody should.

use chrono::NaiveDate;

use super::read::{REPEATED_MAX, TIMES_MAX};
use super::*;

const TODAY: &str = "2026-03-02";

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn file(body: &str) -> String {
    format!("BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//test//EN\n{body}\nEND:VCALENDAR\n")
        .replace('\n', "\r\n")
}

fn event(lines: &str) -> String {
    file(&format!("BEGIN:VEVENT\nUID:1\n{lines}\nEND:VEVENT"))
}

/// The dates and names that a file comes to.
fn dates(text: &str) -> Vec<String> {
    let reading = read(text, date(TODAY)).unwrap();
    reading.calendar.dates().iter().map(|(date, name)| format!("{date} {name}")).collect()
}

#[track_caller]
fn refused(text: &str, words: &str) {
    let said = read(text, date(TODAY)).unwrap_err().join("\n");
    assert!(said.contains(words), "{said:?} does not say {words:?}");
}

#[test]
fn an_event_covers_the_dates_that_its_local_times_touch() {
    for (lines, covered, why) in [
        ("DTSTART;VALUE=DATE:20261225", &["2026-12-25"][..], "no end is one day"),
        ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261225", &["2026-12-25"], "nor is none"),
        (
            "DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261227",
            &["2026-12-25", "2026-12-26"],
            "the end is not in it",
        ),
        ("DTSTART:20261225T090000", &["2026-12-25"], "a time alone"),
        (
            "DTSTART:20261225T220000\nDTEND:20261226T020000",
            &["2026-12-25", "2026-12-26"],
            "over midnight",
        ),
        ("DTSTART:20261225T220000\nDTEND:20261226T000000", &["2026-12-25"], "up to midnight"),
        ("DTSTART:20261225T220000\nDURATION:P1D", &["2026-12-25", "2026-12-26"], "a length"),
        ("DTSTART:20261225T220000\nDURATION:PT0S", &["2026-12-25"], "no length"),
        (
            "DTSTART;TZID=America/New_York:20261225T220000\nDURATION:PT1H",
            &["2026-12-25"],
            "on the wall clock of its zone",
        ),
        (
            "DTSTART;TZID=\"W. Europe Standard Time\":20261225T220000\nDURATION:PT1H",
            &["2026-12-25"],
            "also of one that we do not know",
        ),
        ("DTSTART:20261225T230000Z", &["2026-12-25"], "UTC, where the file has no zone"),
    ] {
        assert_eq!(
            dates(&event(lines)),
            covered.iter().map(|d| format!("{d} ")).collect::<Vec<_>>(),
            "{why}"
        );
    }
    let berlin =
        file("X-WR-TIMEZONE:Europe/Berlin\nBEGIN:VEVENT\nDTSTART:20261225T230000Z\nEND:VEVENT");
    assert_eq!(dates(&berlin), ["2026-12-26 "], "the file's own zone");
}

#[test]
fn a_repeated_event_is_expanded_from_five_years_before_to_thirty_after() {
    let yearly = event("SUMMARY:Neujahr\nDTSTART;VALUE=DATE:20100101\nRRULE:FREQ=YEARLY");
    let found = dates(&yearly);

    assert_eq!(found.first().unwrap(), "2022-01-01 Neujahr");
    assert_eq!(found.last().unwrap(), "2056-01-01 Neujahr");
    assert_eq!(found.len(), 35);
}

#[test]
fn rules_additions_and_exceptions_mean_what_they_mean_in_a_schedule() {
    for (lines, covered) in [
        (
            "DTSTART;VALUE=DATE:20261126\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=3;",
            &["2026-11-26", "2027-11-25", "2028-11-23"][..],
        ),
        (
            "DTSTART;VALUE=DATE:20260105\nDTEND;VALUE=DATE:20260107\nRRULE:FREQ=WEEKLY;UNTIL=20260115\n\
             EXDATE;VALUE=DATE:20260112\nRDATE;VALUE=DATE:20260201",
            &["2026-01-05", "2026-01-06", "2026-02-01", "2026-02-02"],
        ),
        (
            "DTSTART;VALUE=DATE:20260105\nRDATE;VALUE=DATE:20260110,20260111",
            &["2026-01-05", "2026-01-10", "2026-01-11"],
        ),
        (
            "DTSTART;TZID=Europe/Berlin:20260328T023000\nDTEND;TZID=Europe/Berlin:20260328T033000\n\
             RRULE:FREQ=DAILY;COUNT=3",
            &["2026-03-28", "2026-03-29", "2026-03-30"],
        ),
        (
            "DTSTART:20260328T233000Z\nRRULE:FREQ=DAILY;UNTIL=20260329T233000Z",
            &["2026-03-28", "2026-03-29"],
        ),
    ] {
        let covered: Vec<_> = covered.iter().map(|date| format!("{date} ")).collect();
        assert_eq!(dates(&event(lines)), covered, "{lines}");
    }
}

/// Of three Mondays the second is moved to a Tuesday and the third canceled.
#[test]
fn an_event_that_stands_for_one_time_takes_that_time_away() {
    let text = file(
        "BEGIN:VEVENT\nUID:w\nSUMMARY:Weekly\nDTSTART;VALUE=DATE:20260105\nRRULE:FREQ=WEEKLY;COUNT=3\nEND:VEVENT\n\
         BEGIN:VEVENT\nUID:w\nSUMMARY:Moved\nRECURRENCE-ID;VALUE=DATE:20260112\nDTSTART;VALUE=DATE:20260113\nEND:VEVENT\n\
         BEGIN:VEVENT\nUID:w\nRECURRENCE-ID;VALUE=DATE:20260119\nDTSTART;VALUE=DATE:20260119\nSTATUS:CANCELLED\nEND:VEVENT",
    );

    assert_eq!(dates(&text), ["2026-01-05 Weekly", "2026-01-13 Moved"]);
}

/// Folded lines, alarms, zones, small letters, quoted and unknown parameters, a canceled event.
#[test]
fn what_a_file_holds_besides_does_not_matter() {
    let text = file(
        "METHOD:PUBLISH\nX-WR-CALNAME:Feiertage\n\
         BEGIN:VTIMEZONE\nTZID:Europe/Berlin\nBEGIN:STANDARD\nDTSTART:19701025T030000\nRRULE:FREQ=YEARLY\n\
         TZOFFSETFROM:+0200\nTZOFFSETTO:+0100\nEND:STANDARD\nEND:VTIMEZONE\n\
         begin:vevent\nUID:a\nsummary;language=de:Tag der Deutschen\n  Einheit\\, bundesweit\n\
         dtstart;value=date:20261003\nATTENDEE;CN=\"A: B\":mailto:a@example.org\nTRANSP:TRANSPARENT\n\
         BEGIN:VALARM\nTRIGGER:-P1D\nSUMMARY:Wake\nDTSTART:20200101\nEND:VALARM\nend:vevent\n\
         BEGIN:VEVENT\nUID:b\nSTATUS:CANCELLED\nDTSTART;VALUE=DATE:20261004\nEND:VEVENT\n\
         BEGIN:VTODO\nUID:c\nDTSTART;VALUE=DATE:20261005\nEND:VTODO",
    );

    let reading = read(&text, date(TODAY)).unwrap();

    assert_eq!(reading.events, 1, "one counts, and the other is canceled");
    assert_eq!(dates(&text), ["2026-10-03 Tag der Deutschen Einheit, bundesweit"]);
}

#[test]
fn a_mistake_is_told_with_its_event_its_line_and_what_would_be_right() {
    refused("hello", "first line must be BEGIN:VCALENDAR");
    refused("", "first line must be BEGIN:VCALENDAR");
    refused(&file(""), "no event");
    refused(
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR",
        "line 3: END:VCALENDAR stands where END:VEVENT",
    );
    refused("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260101", "BEGIN:VEVENT in line 2 has no END");
    refused("BEGIN:VCALENDAR\nEND:VCALENDAR\nEND:VEVENT", "line 3: END:VEVENT ends nothing");
    refused(&file("X-WR-TIMEZONE:Europe/Berln"), "line 4: X-WR-TIMEZONE");
    for (lines, words) in [
        ("SUMMARY:Ostern", "the event in line 4 (Ostern): it has no DTSTART"),
        ("DTSTART;VALUE=DATE:2026-12-25", "line 6: DTSTART: \"2026-12-25\" is no date or time"),
        ("DTSTART:20260231", "line 6: DTSTART: \"20260231\" is no date or time"),
        ("DTSTART:20260101\nDTSTART:20260102", "line 7: DTSTART is given twice"),
        ("DTSTART:20260102\nDTEND:20260101", "it ends before it begins"),
        ("DTSTART:20260102\nDTEND:20260103T100000", "must both be dates, or both times"),
        ("DTSTART:20260102\nDTEND:20260103\nDURATION:P1D", "both DTEND and DURATION"),
        ("DTSTART:20260102\nDURATION:tomorrow", "line 7: DURATION: \"tomorrow\""),
        ("DTSTART:20260102\nRRULE:FREQ=YERLY", "RRULE: "),
        ("DTSTART:20260102\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("DTSTART:20260102\nEXRULE:FREQ=DAILY", "line 7: EXRULE was withdrawn"),
        ("DTSTART:20260102\nRDATE;VALUE=PERIOD:20260105T000000Z/P1D", "VALUE=PERIOD is not taken"),
        ("DTSTART:20260102\nRECURRENCE-ID;RANGE=THISANDFUTURE:20260105", "RANGE is not taken"),
        ("DTSTART:20260102\nSTATUS:CANCELLED", "none of its 1 events excludes a date"),
        ("DTSTART:20000102\nRRULE:FREQ=YEARLY;COUNT=2", "none of its 1 events excludes a date"),
    ] {
        refused(&event(lines), words);
    }
}

#[test]
fn a_hostile_file_is_refused_quickly() {
    let half = |line: &str| line.repeat(ICS_MAX / line.len());
    refused(&half("BEGIN:VEVENT\n"), "first line must be");
    let nested = format!("BEGIN:VCALENDAR\n{}", "BEGIN:VEVENT\n".repeat(80_000));
    refused(&nested, "at most 8 deep");
    refused(&format!("BEGIN:VCALENDAR\nX:{}", "x".repeat(1_000_000)), "line 2: longer than");
    let folded = format!("BEGIN:VCALENDAR\nX:\n{}", " x\n".repeat(300_000));
    refused(&folded, "line 2: longer than");
    refused(&"x".repeat(ICS_MAX + 1), "at most 1048576");
    for rule in ["SECONDLY", "MINUTELY", "HOURLY"] {
        let endless = event(&format!("DTSTART:20260101T000000\nRRULE:FREQ={rule}"));
        refused(&endless, "FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY");
    }
    let list = |to: u32| (0..to).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let often = format!(
        "DTSTART:20260101T000000\nRRULE:FREQ=DAILY;BYHOUR={};BYMINUTE={};BYSECOND={}",
        list(24),
        list(60),
        list(60)
    );
    refused(&event(&often), &format!("more than {TIMES_MAX} times"));
    let [one, two] = [event(&often), event(&often)];
    let both = one.replace("END:VCALENDAR\r\n", two.split_once("EN\r\n").unwrap().1);
    assert_eq!(read(&both, date(TODAY)).unwrap_err().len(), 1, "a limit is told once");
    let long = "DTSTART;VALUE=DATE:00010101\nDTEND;VALUE=DATE:99991231";
    refused(&event(long), "more than 20000 dates");
    let three = "BEGIN:VEVENT\nDTSTART:20260101\nRRULE:FREQ=YEARLY;COUNT=1\nEND:VEVENT\n";
    refused(&file(three.repeat(REPEATED_MAX + 1).trim_end()), "at most 300 repeated events");
    let counted = "BEGIN:VEVENT\nDTSTART:20260101\nRRULE:FREQ=YEARLY;COUNT=30000\nEND:VEVENT\n";
    refused(
        &file(counted.repeat(2).trim_end()),
        "the COUNTs of the repeated events add up to more",
    );
}

#[test]
fn what_is_no_text_is_refused_with_its_line() {
    assert!(
        text_of(b"a\nb\xff").unwrap_err().starts_with("line 2: byte 3 of the file is no UTF-8")
    );
    assert!(text_of(b"a\n\nb\0").unwrap_err().starts_with("line 3: the character U+0000"));
    assert!(text_of(&vec![b'x'; ICS_MAX + 1]).unwrap_err().contains("at most 1048576"));
    assert_eq!(text_of("\u{feff}BEGIN".as_bytes()), Ok("BEGIN"));
}
