#!/usr/bin/env python3
"""Writes dateutil.json: what python-dateutil makes of some hundred random recurrence rules.

An independent oracle for `schedule`: rules and starts are drawn with a fixed seed, expanded in local
time without a zone, and the first times are kept. Run it again only to draw others:

    pip install python-dateutil==2.9.0.post0
    python3 make_dateutil.py > dateutil.json

Left out, because the two differ on purpose: what RFC 5545 forbids and dateutil takes; numbers mixed
with plain days in BYDAY (dateutil takes neither then, the RFC means both); BYSETPOS with a weekly rule
that does not start on the first day of the week (dateutil cuts the first week).
"""

import itertools
import json
import random
import signal
import sys
import warnings
from datetime import datetime, timedelta

from dateutil.rrule import rrulestr

DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]
TIMES_KEPT = 8
RULES = 700
# Times later than this after the start are not kept.
FAR = timedelta(days=366 * 45)
# A rule that dateutil needs longer for is left out (it steps through the seconds of a sparse one).
PATIENCE_SECONDS = 0.15


def some(rng, values, most):
    return sorted(rng.sample(list(values), rng.randint(1, most)))


def join(values):
    return ",".join(str(value) for value in values)


def signed(rng, high, most):
    return [value if rng.random() < 0.7 else -value for value in some(rng, range(1, high + 1), most)]


def draw(rng):
    freq = rng.choice(["YEARLY"] * 4 + ["MONTHLY"] * 4 + ["WEEKLY"] * 3 + ["DAILY"] * 2
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
        parts["BYWEEKNO"] = join(signed(rng, 53, 3))
    if freq in ("YEARLY", "HOURLY", "MINUTELY", "SECONDLY") and rng.random() < 0.2:
        parts["BYYEARDAY"] = join(signed(rng, 366, 5))
    if freq != "WEEKLY" and rng.random() < 0.3:
        parts["BYMONTHDAY"] = join(signed(rng, 31, 5))
    if rng.random() < 0.4:
        days = some(rng, range(7), 4)
        numbered = freq in ("YEARLY", "MONTHLY") and "BYWEEKNO" not in parts and rng.random() < 0.5
        high = 53 if freq == "YEARLY" and "BYMONTH" not in parts else 5
        number = (lambda: rng.choice([-1, 1]) * rng.randint(1, high)) if numbered else (lambda: "")
        parts["BYDAY"] = ",".join(f"{number()}{DAYS[day]}" for day in days)
    if rng.random() < (0.5 if fine else 0.35):
        parts["BYHOUR"] = join(some(rng, range(24), 4))
    if rng.random() < 0.35:
        parts["BYMINUTE"] = join(some(rng, range(60), 4))
    if rng.random() < 0.2:
        parts["BYSECOND"] = join(some(rng, range(60), 3))
    start = datetime(rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28),
                     rng.randint(0, 23), rng.randint(0, 59), rng.randint(0, 59))
    if rng.random() < 0.25 and any(part.startswith("BY") for part in parts):
        parts["BYSETPOS"] = join(signed(rng, 6, 2))
        if freq == "WEEKLY":
            start -= timedelta(days=(start.weekday() - DAYS.index(wkst)) % 7)
    ending = rng.random()
    if ending < 0.2:
        parts["COUNT"] = rng.randint(1, 7)
    elif ending < 0.35:
        until = start + timedelta(days=rng.choice([1, 10, 100, 1000]))
        parts["UNTIL"] = until.strftime("%Y%m%dT%H%M%S")
    return start, ";".join(f"{name}={value}" for name, value in parts.items())


class TooLong(Exception):
    pass


def give_up(*_):
    raise TooLong


def main():
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, give_up)
    rng = random.Random(5545)
    cases = []
    while len(cases) < RULES:
        start, rule = draw(rng)
        far = start + FAR
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
        try:
            expansion = rrulestr(rule, dtstart=start)
            near = itertools.takewhile(lambda at: at < far, expansion)
            times = list(itertools.islice(near, TIMES_KEPT))
        except (ValueError, TooLong):
            continue
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        # Whether `times` is all there is, as far as `far`.
        complete = len(times) < TIMES_KEPT
        cases.append([start.isoformat(), rule, complete, [at.isoformat() for at in times]])
    json.dump({"far_days": FAR.days, "cases": cases}, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
