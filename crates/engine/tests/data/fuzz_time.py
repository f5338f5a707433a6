#!/usr/bin/env python3
"""Compares random schedules with what others make of them, until the first difference.

    fuzz_time.py <schedule_answers> [N] [SEED]

Asks N cases of each of three oracles (rules in UTC, rules in any zone, cron in any zone). `make fuzz-time`
builds what it needs. A difference is printed with the line that shows it again.
"""

import collections
import json
import subprocess
import sys
import time
import zoneinfo

import oracle

ORACLES = {
    "rules": ([oracle.dateutil_case], lambda: ["UTC"]),
    "rules-in-zones": ([oracle.dateutil_case], lambda: oracle.ZONES + ALL),
    "cron": ([oracle.cron_case], lambda: oracle.ZONES + ALL),
}
# Every zone there is; the twenty difficult ones come as often as all others together.
ALL = []


def ask(program, case, count):
    question = {name: case[name] for name in ("kind", "expr", "zone", "gap", "fold")}
    question |= {"from": oracle.told(case["from"]), "count": count}
    program.stdin.write(json.dumps(question) + "\n")
    program.stdin.flush()
    return json.loads(program.stdout.readline())


def difference(program, case):
    """What differs, or None."""
    answer = ask(program, case, len(case["times"]) + case["complete"])
    wanted = [oracle.told(at) for at in case["times"]]
    if "refused" in answer:
        never = "never fires" in answer["refused"] and not wanted
        return None if never else f"wanted {wanted}\nrefused: {answer['refused']}"
    far = oracle.told(case["from"] + oracle.FAR)
    found = [at for at in answer["fires"] if at < far]
    return None if found == wanted else f"wanted {wanted}\nfound  {found}"


def main():
    path, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 5000
    seed = rest[1] if len(rest) > 1 else str(time.time_ns() // 1_000_000)
    names = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
    ALL.extend(names[:: max(1, len(names) // len(oracle.ZONES))])
    program = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(f"seed {seed}, {count} cases each", flush=True)
    for name, (kinds, zones) in ORACLES.items():
        tally = collections.Counter()
        zones = zones()
        number = 0
        begun = time.monotonic()
        while tally["compared"] < count:
            one = f"{seed}-{name}-{number}"
            number += 1
            case = oracle.draw(one, kinds, zones)
            if case is None:
                tally["no answer"] += 1
                continue
            found = difference(program, case)
            tally["compared"] += 1
            tally["times"] += len(case["times"])
            if found:
                print(f"\n{name}, case {number - 1}\n{case['expr']}\nin {case['zone']}, gap "
                      f"{case['gap']}, fold {case['fold']}, from {case['from']}\n{found}\n\n"
                      f"again: make fuzz-time N={number} SEED={seed}")
                return 1
        print(f"{name}: {tally['compared']} compared, {tally['times']} times, {tally['no answer']} "
              f"without an answer, {time.monotonic() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
