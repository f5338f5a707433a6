#!/usr/bin/env python3
"""Writes dateutil.json, dateutil_zones.json and croniter.json: what others make of random schedules.

Seeds are fixed. Run it again only to draw others, beside this file:

    pip install python-dateutil==2.9.0.post0 croniter==6.0.0 tzdata==2025.2
    python3 make_fixtures.py [croniter.json …]
"""

import itertools
import json
import pathlib
import sys

import oracle

FILES = [
    ("dateutil.json", "rrule", [oracle.dateutil_case], ["UTC"], 1300, 5545),
    ("dateutil_zones.json", "rrule", [oracle.dateutil_case], oracle.ZONES, 1500, 2445),
    ("croniter.json", "cron", [oracle.cron_case], oracle.ZONES, 1700, 1003),
]


def main():
    for name, kind, kinds, zones, count, seed in FILES:
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        drawn = (oracle.draw(f"{seed}-{number}", kinds, zones) for number in itertools.count())
        # A case without times is worth little: a few are enough.
        rows = []
        empty = 0
        for case in drawn:
            if case is None or (not case["times"] and empty * 20 > len(rows)):
                continue
            empty += not case["times"]
            rows.append(oracle.row(case))
            if len(rows) == count:
                break
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        path = pathlib.Path(__file__).with_name(name)
        path.write_text(f'{{"kind":"{kind}","far_days":{oracle.FAR.days},"cases":[\n{lines}\n]}}\n')
        print(name, len(rows), "cases,", path.stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main()
