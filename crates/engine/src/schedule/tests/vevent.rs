//! Events from a calendar as schedules.

use super::{compiled, fires, problems, spec};
use crate::task::ScheduleKind::Rrule;

/// As calendars export it: folded, CRLF, with a zone's own rules and an alarm.
const EXPORTED: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Example//EN\r\nMETHOD:PUBLISH\r\n\
BEGIN:VTIMEZONE\r\nTZID:W. Europe Standard Time\r\nBEGIN:STANDARD\r\nDTSTART:16010101T030000\r\n\
TZOFFSETFROM:+0200\r\nTZOFFSETTO:+0100\r\nRRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10\r\nEND:STANDARD\r\n\
END:VTIMEZONE\r\nBEGIN:VEVENT\r\nUID:1@example.org\r\nDTSTAMP:20260101T000000Z\r\n\
SUMMARY:Review\\, weekly: bring FREQ=DAILY\r\nDTSTART;TZID=\"W. Europe Standard Time\":20260105T100000\r\n\
DTEND;TZID=\"W. Europe Standard Time\":20260105T110000\r\nRRULE:FREQ=WEEKLY;COUNT=5;BYDAY=M\r\n O\r\n\
EXDATE;TZID=\"W. Europe Standard Time\":20260112T100000\r\nRDATE:20260106T090000Z\r\n\
BEGIN:VALARM\r\nTRIGGER:-PT15M\r\nDURATION:PT5M\r\nACTION:DISPLAY\r\nEND:VALARM\r\n\
X-MICROSOFT-CDO-BUSYSTATUS:BUSY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

#[test]
fn an_event_out_of_a_calendar_is_a_schedule() {
    let schedule = compiled(&spec(Rrule, EXPORTED, "Europe/Berlin"));

    assert_eq!(
        fires(&schedule, "2026-01-01T00:00:00Z", 9),
        [
            "2026-01-05T10:00:00+01:00",
            "2026-01-06T10:00:00+01:00",
            "2026-01-19T10:00:00+01:00",
            "2026-01-26T10:00:00+01:00",
            "2026-02-02T10:00:00+01:00",
        ]
    );
    let start = EXPORTED.find("BEGIN:VEVENT").unwrap();
    let alone = EXPORTED[start..].replace("END:VCALENDAR\r\n", "");
    let alone = compiled(&spec(Rrule, &alone, "Europe/Berlin"));
    assert_eq!(fires(&alone, "2026-01-01T00:00:00Z", 1), ["2026-01-05T10:00:00+01:00"]);
}

#[test]
fn an_event_that_cannot_be_a_schedule_says_why() {
    let event = "BEGIN:VEVENT\nDTSTART:20300101T080000\nRRULE:FREQ=DAILY\nEND:VEVENT\n";
    for (expr, words) in [
        (event.replace("RRULE:FREQ=DAILY\n", ""), "use schedule_kind \"once\""),
        (event.replace("END:VEVENT", ""), "BEGIN:VEVENT has no END:VEVENT"),
        (event.replace("END:VEVENT", "END:VTODO"), "END:VTODO has no BEGIN:VTODO"),
        (event.replace("VEVENT", "VTODO"), "there is no VEVENT"),
        (format!("BEGIN:VCALENDAR\n{event}{event}END:VCALENDAR"), "there are 2 VEVENTs"),
        (format!("{event}RRULE:FREQ=DAILY"), "stands outside the VEVENT"),
        (event.replace("FREQ=DAILY", "FREQ=DAYLY"), "did you mean DAILY?"),
        (event.replace("RRULE", "EXRULE:FREQ=WEEKLY\nRRULE"), "EXRULE was withdrawn"),
        (event.replace("DTSTART", "DTSTART;TZID=Asia/Tokyo"), "make them the same"),
        (event.replace("DTSTART", "DTSTART;TZID=Europe/Berln"), "did you mean \"Europe/Berlin\"?"),
        ("SUMMARY:Lunch\nRRULE:FREQ=DAILY".to_owned(), "\"SUMMARY\" is not taken"),
    ] {
        let found = problems(&spec(Rrule, &expr, "UTC"));
        assert_eq!((found.len(), found[0].pointer.as_str()), (1, "/schedule_expr"), "{expr}");
        assert!(found[0].message.contains(words), "{expr}: {}", found[0].message);
    }
}
