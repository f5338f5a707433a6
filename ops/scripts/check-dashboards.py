#!/usr/bin/env python3
"""Asks a running Prometheus for every query of every dashboard, and names those that answer nothing.

    ops/scripts/check-dashboards.py [http://127.0.0.1:9090] [--seconds 60] [--verbose]

What Grafana fills in is filled in: the rate interval (--seconds), `$tool` with everything. An answer of
nothing but NaN counts as nothing, for that is what Grafana draws of it. A 0 is an answer. Also asked are
the recording rules and the alerts: a rule in error fails. Exits 1 when something is empty.
ops/scripts/try-monitoring.sh starts a whole system under load and then this.
"""

import argparse
import json
import math
import pathlib
import sys
import urllib.error
import urllib.parse
import urllib.request

DASHBOARDS = pathlib.Path(__file__).parent.parent / "monitoring" / "grafana" / "dashboards"


def ask(base, path, **parameters):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{parameters.get('query', path)}\n  {json.load(error)['error']}") from error


def values(base, query):
    """The numbers of the answer, without those that are none."""
    found = [float(sample["value"][1]) for sample in ask(base, "query", query=query)["result"]]
    return [value for value in found if not math.isnan(value)]


def targets():
    for file in sorted(DASHBOARDS.glob("*.json")):
        row = ""
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] == "row":
                row = panel["title"]
            for target in panel.get("targets", []):
                yield f"{file.stem} / {row} / {panel['title']} {target['refId']}", target["expr"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("prometheus", nargs="?", default="http://127.0.0.1:9090")
    parser.add_argument("--seconds", type=int, default=60, help="the rate interval (four scrapes)")
    parser.add_argument("--verbose", action="store_true", help="also what every query answers")
    options = parser.parse_args()
    base = options.prometheus.rstrip("/")
    asked, empty = 0, []
    for place, expr in targets():
        query = expr.replace("$__rate_interval", f"{options.seconds}s").replace("$tool", ".*")
        found = values(base, query)
        asked += 1
        if not found:
            empty.append((place, query))
        elif options.verbose:
            print(f"{place}: {len(found)} series, {min(found):g} to {max(found):g}")
    for place, query in empty:
        print(f"empty: {place}\n  {query}")
    rules = [rule for group in ask(base, "rules")["groups"] for rule in group["rules"]]
    ill = [rule for rule in rules if rule["health"] == "err"]
    for rule in ill:
        print(f"in error: {rule['name']}: {rule.get('lastError')}")
    silent = [rule["name"] for rule in rules if rule["type"] == "recording" and not values(base, rule["name"])]
    for name in silent:
        print(f"empty: the recording rule {name}")
    firing = sorted(rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] == "firing")
    print(f"{asked} queries, {len(empty)} empty; {len(rules)} rules, {len(ill)} in error, {len(silent)} empty;"
          f" alerts that fire: {', '.join(firing) or 'none'}")
    sys.exit(1 if empty or ill or silent else 0)


if __name__ == "__main__":
    main()
