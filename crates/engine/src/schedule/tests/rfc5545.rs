//! The examples of RFC 5545 §3.8.5.3, with the dates that are printed there.

use super::{compiled, fires, problems, spec};
use crate::task::ScheduleKind::Rrule;

/// `DTSTART;TZID=America/New_York`, rule, dates: a year, then `MMDD` (09:00) or `MMDDThhmm`. `...` is
/// what the RFC writes where more follow; without it the rule must end there.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "19970902T090000",
        "FREQ=DAILY;COUNT=10",
        "1997 0902 0903 0904 0905 0906 0907 0908 0909 0910 0911",
    ),
    ("19971220T090000", "FREQ=DAILY;UNTIL=19971224T000000Z", "1997 1220 1221 1222 1223"),
    (
        "19970902T090000",
        "FREQ=DAILY;INTERVAL=2",
        "1997 0902 0904 0906 0908 0910 0912 0914 0916 0918 0920 0922 0924 ...",
    ),
    ("19970902T090000", "FREQ=DAILY;INTERVAL=10;COUNT=5", "1997 0902 0912 0922 1002 1012"),
    (
        "19980101T090000",
        "FREQ=YEARLY;UNTIL=20000131T140000Z;BYMONTH=1;BYDAY=SU,MO,TU,WE,TH,FR,SA",
        "1998 0101 0102 0103 0104 0105 ...",
    ),
    (
        "19980101T090000",
        "FREQ=DAILY;UNTIL=20000131T140000Z;BYMONTH=1",
        "1998 0101 0102 0103 0104 0105 ...",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;COUNT=10",
        "1997 0902 0909 0916 0923 0930 1007 1014 1021 1028 1104",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;UNTIL=19971224T000000Z",
        "1997 0902 0909 0916 0923 0930 1007 1014 1021 1028 1104 1111 1118 1125 1202 1209 1216 1223",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;INTERVAL=2;WKST=SU",
        "1997 0902 0916 0930 1014 1028 1111 1125 1209 1223 1998 0106 0120 0203 ...",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH",
        "1997 0902 0904 0909 0911 0916 0918 0923 0925 0930 1002",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;COUNT=10;WKST=SU;BYDAY=TU,TH",
        "1997 0902 0904 0909 0911 0916 0918 0923 0925 0930 1002",
    ),
    (
        "19970901T090000",
        "FREQ=WEEKLY;INTERVAL=2;UNTIL=19971224T000000Z;WKST=SU;BYDAY=MO,WE,FR",
        "1997 0901 0903 0905 0915 0917 0919 0929 1001 1003 1013 1015 1017 1027 1029 1031 1110 1112 1114 1124 1126 1128 1208 1210 1212 1222",
    ),
    (
        "19970902T090000",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH",
        "1997 0902 0904 0916 0918 0930 1002 1014 1016",
    ),
    (
        "19970905T090000",
        "FREQ=MONTHLY;COUNT=10;BYDAY=1FR",
        "1997 0905 1003 1107 1205 1998 0102 0206 0306 0403 0501 0605",
    ),
    (
        "19970905T090000",
        "FREQ=MONTHLY;UNTIL=19971224T000000Z;BYDAY=1FR",
        "1997 0905 1003 1107 1205",
    ),
    (
        "19970907T090000",
        "FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU",
        "1997 0907 0928 1102 1130 1998 0104 0125 0301 0329 0503 0531",
    ),
    (
        "19970922T090000",
        "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO",
        "1997 0922 1020 1117 1222 1998 0119 0216",
    ),
    (
        "19970928T090000",
        "FREQ=MONTHLY;BYMONTHDAY=-3",
        "1997 0928 1029 1128 1229 1998 0129 0226 ...",
    ),
    (
        "19970902T090000",
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=2,15",
        "1997 0902 0915 1002 1015 1102 1115 1202 1215 1998 0102 0115",
    ),
    (
        "19970930T090000",
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1",
        "1997 0930 1001 1031 1101 1130 1201 1231 1998 0101 0131 0201",
    ),
    (
        "19970910T090000",
        "FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15",
        "1997 0910 0911 0912 0913 0914 0915 1999 0310 0311 0312 0313",
    ),
    (
        "19970902T090000",
        "FREQ=MONTHLY;INTERVAL=2;BYDAY=TU",
        "1997 0902 0909 0916 0923 0930 1104 1111 1118 1125 1998 0106 0113 0120 0127 0303 0310 0317 0324 0331 ...",
    ),
    (
        "19970610T090000",
        "FREQ=YEARLY;COUNT=10;BYMONTH=6,7",
        "1997 0610 0710 1998 0610 0710 1999 0610 0710 2000 0610 0710 2001 0610 0710",
    ),
    (
        "19970310T090000",
        "FREQ=YEARLY;INTERVAL=2;COUNT=10;BYMONTH=1,2,3",
        "1997 0310 1999 0110 0210 0310 2001 0110 0210 0310 2003 0110 0210 0310",
    ),
    (
        "19970101T090000",
        "FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200",
        "1997 0101 0410 0719 2000 0101 0409 0718 2003 0101 0410 0719 2006 0101",
    ),
    ("19970519T090000", "FREQ=YEARLY;BYDAY=20MO", "1997 0519 1998 0518 1999 0517 ..."),
    ("19970512T090000", "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "1997 0512 1998 0511 1999 0517 ..."),
    (
        "19970313T090000",
        "FREQ=YEARLY;BYMONTH=3;BYDAY=TH",
        "1997 0313 0320 0327 1998 0305 0312 0319 0326 1999 0304 0311 0318 0325 ...",
    ),
    (
        "19970605T090000",
        "FREQ=YEARLY;BYDAY=TH;BYMONTH=6,7,8",
        "1997 0605 0612 0619 0626 0703 0710 0717 0724 0731 0807 0814 0821 0828 1998 0604 0611 0618 0625 0702 0709 0716 0723 0730 0806 0813 0820 0827 ...",
    ),
    (
        "19970902T090000",
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
        "1998 0213 0313 1113 1999 0813 2000 1013 ...",
    ),
    (
        "19970913T090000",
        "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13",
        "1997 0913 1011 1108 1213 1998 0110 0207 0307 0411 0509 0613 ...",
    ),
    (
        "19961105T090000",
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "1996 1105 2000 1107 2004 1102 ...",
    ),
    ("19970904T090000", "FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "1997 0904 1007 1106"),
    (
        "19970929T090000",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "1997 0929 1030 1127 1230 1998 0129 0226 0330 ...",
    ),
    // The RFC's UNTIL of this example is an erratum of old: 17:00 local is 21:00 in UTC.
    (
        "19970902T090000",
        "FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T210000Z",
        "1997 0902T0900 0902T1200 0902T1500",
    ),
    (
        "19970902T090000",
        "FREQ=MINUTELY;INTERVAL=15;COUNT=6",
        "1997 0902T0900 0902T0915 0902T0930 0902T0945 0902T1000 0902T1015",
    ),
    (
        "19970902T090000",
        "FREQ=MINUTELY;INTERVAL=90;COUNT=4",
        "1997 0902T0900 0902T1030 0902T1200 0902T1330",
    ),
    (
        "19970902T090000",
        "FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40",
        "1997 0902T0900 0902T0920 0902T0940 0902T1000 0902T1020 ...",
    ),
    (
        "19970902T090000",
        "FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10,11,12,13,14,15,16",
        "1997 0902T0900 0902T0920 0902T0940 0902T1000 0902T1020 ...",
    ),
    (
        "19970805T090000",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO",
        "1997 0805 0810 0819 0824",
    ),
    (
        "19970805T090000",
        "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU",
        "1997 0805 0817 0819 0831",
    ),
    ("20070115T090000", "FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5", "2007 0115 0130 0215 0315 0330"),
];

fn dates(text: &str) -> Vec<String> {
    let mut year = "";
    let mut dates = Vec::new();
    for token in text.split_whitespace().filter(|token| *token != "...") {
        if token.len() == 4 && token > "1231" {
            year = token;
            continue;
        }
        let (date, time) = token.split_once('T').unwrap_or((token, "0900"));
        dates.push(format!(
            "{year}-{}-{}T{}:{}:00",
            &date[..2],
            &date[2..],
            &time[..2],
            &time[2..]
        ));
    }
    dates
}

#[test]
fn the_examples_of_the_rfc_have_the_dates_printed_there() {
    for (start, rule, text) in EXAMPLES {
        let expr = format!("DTSTART;TZID=America/New_York:{start}\nRRULE:{rule}");
        let schedule = compiled(&spec(Rrule, &expr, "America/New_York"));
        let wanted = dates(text);
        let more = usize::from(!text.ends_with("..."));
        let found: Vec<String> = fires(&schedule, "1996-01-01T00:00:00Z", wanted.len() + more)
            .iter()
            .map(|local| local[..19].to_owned())
            .collect();
        assert_eq!(found, wanted, "{start} {rule}");
    }
}

#[test]
fn an_exdate_is_no_fire_but_counts_in_count() {
    let expr = "DTSTART;TZID=America/New_York:19970902T090000\n\
                EXDATE;TZID=America/New_York:19970904T090000,\n 19970905T090000\n\
                RRULE:FREQ=DAILY;COUNT=4\nRDATE:19970910T130000Z";
    let schedule = compiled(&spec(Rrule, expr, "America/New_York"));

    assert_eq!(
        fires(&schedule, "1997-01-01T00:00:00Z", 9),
        ["1997-09-02T09:00:00-04:00", "1997-09-03T09:00:00-04:00", "1997-09-10T09:00:00-04:00"]
    );
}

#[test]
fn what_the_rfc_forbids_is_refused_with_its_words() {
    for (rule, words) in [
        ("FREQ=DAILY;COUNT=3;UNTIL=20270101", "COUNT and UNTIL"),
        ("FREQ=MONTHLY;BYWEEKNO=20", "BYWEEKNO must not be used"),
        ("FREQ=DAILY;BYYEARDAY=1", "BYYEARDAY must not be used"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY must not be used"),
        ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY must not have a number"),
        ("FREQ=YEARLY;BYDAY=1MO;BYWEEKNO=3", "together with BYWEEKNO"),
        ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS must only be used"),
    ] {
        let found = problems(&spec(Rrule, rule, "UTC"));
        assert_eq!(found.len(), 1, "{rule}: {found:?}");
        assert_eq!(found[0].pointer, "/schedule_expr");
        assert!(found[0].message.contains(words), "{rule}: {}", found[0].message);
        assert!(found[0].message.contains("RFC 5545 §3.3.10"), "{rule}");
    }
}
