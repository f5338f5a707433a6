"""What others make of random schedules: an independent oracle for `engine/src/schedule`.

Rules are drawn at random and expanded by python-dateutil, cron expressions by croniter, both in local time
without a zone; a few shapes of rules that count elapsed time are worked out here, second by second.
Local times become instants by `resolve`, which asks the standard library's zoneinfo and follows the
policies that docs/scheduling.md promises. Nothing here knows how the engine does it.

Left out, because the two differ on purpose (docs/scheduling.md, "Differences from other programs"):
what RFC 5545 forbids and dateutil takes; numbers mixed with plain days in BYDAY (dateutil takes neither
then, the RFC means both); BYSETPOS with a weekly rule that does not start on the first day of the week
(dateutil cuts the first week); weeks 52 and 53 and those counted back to them (dateutil takes 1 January 2011 for
week 53); -53 of a weekday.
"""

import itertools
import random
import signal
import warnings
import zoneinfo
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from croniter import croniter
from dateutil.rrule import rrulestr

# The zone data of the package tzdata, not the machine's: the same release as the engine's.
zoneinfo.reset_tzpath(to=[])
warnings.simplefilter("ignore")

DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]
ZONES = [
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia",
    "America/Sao_Paulo", "Asia/Kathmandu", "Europe/Dublin", "America/St_Johns", "Asia/Tehran",
    "Asia/Amman", "Pacific/Chatham", "America/Havana", "Africa/Cairo", "Asia/Gaza", "America/Asuncion",
    "Antarctica/Troll", "Europe/Chisinau", "Asia/Kolkata", "America/Santiago",
]
# Local dates about which clocks change in some of them.
CHANGES = [
    datetime(2026, 3, 29), datetime(2026, 10, 25), datetime(2026, 3, 8), datetime(2026, 11, 1),
    datetime(2026, 10, 4), datetime(2026, 4, 5), datetime(2026, 2, 15), datetime(2026, 3, 22),
    datetime(2011, 12, 30), datetime(2017, 10, 15), datetime(2017, 2, 18), datetime(2024, 4, 26),
]
TIMES = 5
# Times later than this after the start are not kept.
FAR = timedelta(days=366 * 30)
# What the oracle needs longer for is left out (it steps through the seconds of a sparse rule).
PATIENCE_SECONDS = 0.1


class TooLong(Exception):
    """The oracle's patience is over."""


def some(rng, values, most):
    return sorted(rng.sample(list(values), rng.randint(1, most)))


def join(values):
    return ",".join(str(value) for value in values)


def signed(rng, high, most):
    return [value if rng.random() < 0.7 else -value for value in some(rng, range(1, high + 1), most)]


# --- from local times to instants -------------------------------------------------------------------


def instant(local, zone, fold):
    return local.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc)


def resolve(local, zone, gap, fold, passing):
    """The instants that a local time stands for, by the policy, or as time passes."""
    first, last = instant(local, zone, 0), instant(local, zone, 1)
    if first.astimezone(zone).replace(tzinfo=None) != local:
        # PEP 495: of a time in a gap, fold 0 is counted with the offset from before, as RFC 5545 wants.
        return [] if passing or gap == "skip" else [first]
    if first == last:
        return [first]
    if passing or fold == "both":
        return [first, last]
    return [first if fold == "first" else last]


def fires(locals_, case, begin, end=None):
    """The first TIMES instants from `begin` on, and whether there are no more."""
    zone = ZoneInfo(case["zone"])
    found = set()
    complete = True
    for local in locals_:
        if local > case["far"]:
            complete = False
            break
        enough = sorted(at for at in found if at >= begin)[:TIMES]
        # Beyond any clock change nothing comes before what was found.
        if len(enough) == TIMES and instant(local, zone, 0) > enough[-1] + timedelta(days=3):
            complete = False
            break
        found.update(resolve(local, zone, case["gap"], case["fold"], case["passing"]))
    kept = sorted(at for at in found if at >= begin and (end is None or at <= end))
    if len(kept) > TIMES:
        complete = False
    return kept[:TIMES], complete


# --- recurrence rules -------------------------------------------------------------------------------


def draw_rule(rng, freqs=None):
    freq = rng.choice(freqs or ["YEARLY"] * 4 + ["MONTHLY"] * 4 + ["WEEKLY"] * 3 + ["DAILY"] * 2
                      + ["HOURLY", "MINUTELY", "SECONDLY"])
    fine = freq in ("HOURLY", "MINUTELY", "SECONDLY")
    parts = {"FREQ": freq}
    if rng.random() < 0.5:
        parts["INTERVAL"] = rng.randint(1, 40 if fine else 7)
    wkst = rng.choice(DAYS) if rng.random() < 0.4 else "MO"
    if wkst != "MO":
        parts["WKST"] = wkst
    if rng.random() < 0.35:
        parts["BYMONTH"] = join(some(rng, range(1, 13), 4))
    if freq == "YEARLY" and rng.random() < 0.25:
        parts["BYWEEKNO"] = join(signed(rng, 51, 3))
    if freq in ("YEARLY", "HOURLY", "MINUTELY", "SECONDLY") and rng.random() < 0.2:
        parts["BYYEARDAY"] = join(signed(rng, 366, 5))
    if freq != "WEEKLY" and rng.random() < 0.3:
        parts["BYMONTHDAY"] = join(signed(rng, 31, 5))
    if rng.random() < 0.4:
        days = some(rng, range(7), 4)
        numbered = freq in ("YEARLY", "MONTHLY") and "BYWEEKNO" not in parts and rng.random() < 0.5
        high = 52 if freq == "YEARLY" and "BYMONTH" not in parts else 5
        number = (lambda: rng.choice([-1, 1]) * rng.randint(1, high)) if numbered else (lambda: "")
        parts["BYDAY"] = ",".join(f"{number()}{DAYS[day]}" for day in days)
    if rng.random() < (0.5 if fine else 0.35):
        parts["BYHOUR"] = join(some(rng, range(24), 4))
    if rng.random() < 0.35:
        parts["BYMINUTE"] = join(some(rng, range(60), 4))
    if rng.random() < 0.2:
        parts["BYSECOND"] = join(some(rng, range(60), 3))
    if rng.random() < 0.5:
        start = datetime(rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28),
                         rng.randint(0, 23), rng.randint(0, 59), rng.randint(0, 59))
    else:
        start = rng.choice(CHANGES) - timedelta(days=rng.choice([0, 1, 2, 7, 30, 400]))
        start += timedelta(minutes=30 * rng.randint(0, 7))
    if rng.random() < 0.25 and any(part.startswith("BY") for part in parts):
        parts["BYSETPOS"] = join(signed(rng, 6, 2))
        if freq == "WEEKLY":
            start -= timedelta(days=(start.weekday() - DAYS.index(wkst)) % 7)
    ending = rng.random()
    if ending < 0.2:
        parts["COUNT"] = rng.randint(1, 7)
    elif ending < 0.35:
        parts["UNTIL"] = start + timedelta(days=rng.choice([1, 10, 100, 1000]))
    return start, parts


def text_of(parts):
    def shown(value):
        return value.strftime("%Y%m%dT%H%M%S") if isinstance(value, datetime) else value
    return ";".join(f"{name}={shown(value)}" for name, value in parts.items())


def dateutil_case(rng, zones):
    """A rule in local time, from its start or from somewhere later; None when there is no answer."""
    start, parts = draw_rule(rng)
    fine = parts["FREQ"] in ("HOURLY", "MINUTELY", "SECONDLY")
    named = "BYHOUR" in parts
    by_the_wall = parts["FREQ"] == "HOURLY" and parts.get("INTERVAL", 1) == 1 and "BYMINUTE" in parts
    zone = rng.choice(zones)
    if fine and not named and not by_the_wall and zone != "UTC":
        return elapsed_case(rng, zone)
    case = {
        "kind": "rrule", "zone": zone, "gap": rng.choice(["shift", "skip"]),
        "fold": rng.choice(["first", "last", "both"]), "passing": fine and not named,
        "expr": f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:{text_of(parts)}",
    }
    expansion = rrulestr(text_of(parts), dtstart=start)
    begin = start
    if "COUNT" not in parts and rng.random() < 0.3:
        begin += timedelta(days=rng.randint(1, 2000), seconds=rng.randint(0, 86_399))
    # Two days earlier: what a gap moves to `begin` or later was asked for before it.
    locals_ = expansion.xafter(begin - timedelta(days=2), inc=True)
    case["far"] = begin + FAR
    case["from"] = instant(begin, ZoneInfo(zone), 0)
    if begin == start and instant(start, ZoneInfo(zone), 1) != case["from"]:
        case["from"] -= timedelta(days=2)
    return finish(case, locals_)


def elapsed_case(rng, zone):
    """Rules that follow the passing of time: candidates every so many seconds, asked by the clock."""
    start = rng.choice(CHANGES) - timedelta(hours=rng.randint(0, 60))
    freq, unit = rng.choice([("HOURLY", 3600), ("MINUTELY", 60), ("SECONDLY", 1)])
    parts = {"FREQ": freq, "INTERVAL": rng.randint(1, {3600: 30, 60: 500, 1: 9000}[unit])}
    asked = {}
    if rng.random() < 0.5:
        days = some(rng, range(7), 4)
        parts["BYDAY"] = join(DAYS[day] for day in days)
        asked["day"] = lambda at: at.weekday() in days
    if rng.random() < 0.3:
        months = some(rng, range(1, 13), 6)
        parts["BYMONTH"] = join(months)
        asked["month"] = lambda at: at.month in months
    if unit < 3600 and rng.random() < 0.4:
        minutes = some(rng, range(60), 20)
        parts["BYMINUTE"] = join(minutes)
        asked["minute"] = lambda at: at.minute in minutes
    if rng.random() < 0.2:
        parts["COUNT"] = rng.randint(1, 7)
    tz = ZoneInfo(zone)
    first = instant(start, tz, 0)

    def times():
        left = parts.get("COUNT", -1)
        for number in itertools.count():
            at = first + timedelta(seconds=number * unit * parts["INTERVAL"])
            local = at.astimezone(tz).replace(tzinfo=None)
            if left == 0 or local > case["far"]:
                return
            if all(ask(local) for ask in asked.values()):
                left -= 1
                yield at

    case = {"kind": "rrule", "zone": zone, "gap": "shift", "fold": "first", "far": start + FAR,
            "from": first, "expr": f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:{text_of(parts)}"}
    found = patiently(lambda: list(itertools.islice(times(), TIMES + 1)))
    if found is None:
        return None
    case["times"], case["complete"] = found[:TIMES], len(found) <= TIMES and "COUNT" in parts
    return case


# --- cron -------------------------------------------------------------------------------------------


def draw_field(rng, low, high, words=()):
    def value():
        number = rng.randint(low, high)
        return rng.choice([str(number), words[number - low]]) if words and number - low < len(words) else str(number)
    shape = rng.random()
    if shape < 0.35:
        return "*"
    if shape < 0.45:
        return f"*/{rng.randint(1, (high - low + 1) // 2)}"
    if shape < 0.7:
        return value()
    # croniter takes 7-7 for a range that goes once around: every value.
    low_, high_ = sorted(rng.sample(range(low, high + 1), 2))
    if shape < 0.8:
        return f"{low_}-{high_}"
    if shape < 0.9:
        return f"{low_}-{high_}/{rng.randint(1, 5)}"
    return ",".join(value() for _ in range(rng.randint(2, 4)))


def cron_case(rng, zones):
    minute, hour = draw_field(rng, 0, 59), draw_field(rng, 0, 23)
    months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
    day, month = draw_field(rng, 1, 31), draw_field(rng, 1, 12, months)
    weekday = draw_field(rng, 0, 6, ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])
    theirs = weekday
    special = rng.random()
    if special < 0.05:
        day = "L"
    elif special < 0.1:
        which = rng.randint(0, 6)
        weekday, theirs, day = f"{which}L", f"L{which}", "*"
    elif special < 0.15:
        weekday = theirs = f"{rng.randint(0, 6)}#{rng.randint(1, 5)}"
        day = "*"
    elif special < 0.2:
        weekday = theirs = "7"
    second = ""
    if rng.random() < 0.15:
        second = draw_field(rng, 0, 59) + " "
    zone = rng.choice(zones)
    start = rng.choice(CHANGES) - timedelta(days=rng.choice([0, 1, 2, 40]), seconds=rng.randint(0, 9999))
    case = {
        "kind": "cron", "zone": zone, "gap": rng.choice(["shift", "skip"]),
        "fold": rng.choice(["first", "last", "both"]), "passing": hour.startswith("*"),
        "expr": f"{second}{minute} {hour} {day} {month} {weekday}", "far": start + FAR,
        "from": instant(start, ZoneInfo(zone), 0),
    }
    days = croniter.expand(f"0 0 {day} * *")[0][2] if day != "L" else []
    if any(isinstance(number, int) and number > 28 for number in days):
        # Behind a month that is shorter than a day of the list croniter loses the first days of the next:
        # after 26 February 2026 the next of "0 6 */5 * *" is 6 March to it, though */5 has the 1st.
        return None
    # croniter's word for Vixie's rule that a field beginning with * joins by AND.
    theirs = croniter(f"{second}{minute} {hour} {day} {month} {theirs}", start - timedelta(days=2),
                      second_at_beginning=True, implement_cron_bug=True, max_years_between_matches=12)
    locals_ = (theirs.get_next(datetime) for _ in itertools.count())
    return finish(case, locals_)


# --- whole cases ------------------------------------------------------------------------------------


def patiently(answer):
    def give_up(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    try:
        return answer()
    except (TooLong, ValueError, OverflowError):
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def finish(case, locals_):
    answer = patiently(lambda: fires(locals_, case, case["from"]))
    if answer is None:
        return None
    case["times"], case["complete"] = answer
    return case


def draw(seed, kinds, zones):
    """The case of that seed; None when the oracle has no answer to it."""
    rng = random.Random(seed)
    try:
        return rng.choice(kinds)(rng, zones)
    except (ValueError, TooLong):
        return None


def told(at):
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def row(case):
    """A case as it is written: expression, zone, policies, from, whether the times are all, times."""
    policies = f"{case['gap']} {case['fold']}"
    return [case["expr"], case["zone"], policies, told(case["from"]), case["complete"],
            [told(at) for at in case["times"]]]
