#!/usr/bin/env python3
"""What promtool and amtool cannot know of ops/monitoring; called by check-monitoring.sh.

- every series in a rule or a dashboard exists: in crates/engine/src/metrics, among what exporters answer
  (ops/monitoring/series), or as a recording rule; and ours have the labels that are asked for;
- every metric of ours is looked at by somebody;
- every alert has a severity, summary, description, a runbook whose section exists, and a test;
- every section of a runbook that an alert names is named by one; dashboards are sound.

Rules are read line by line, in the shape that they have here, for Python brings no YAML.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "ops" / "monitoring"
SEVERITIES = {"critical", "warning", "info", "none"}

# Words of PromQL that look like series; functions are known by their bracket.
KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without", "on", "ignoring",
            "group_left", "group_right", "atan2"}
# What Prometheus itself adds.
BUILT_IN = {"up", "ALERTS", "ALERTS_FOR_STATE", "scrape_duration_seconds", "scrape_samples_scraped"}
# Labels that come from scraping, not from the metric.
SCRAPED = {"job", "instance", "le", "__name__"}


def own_metrics():
    """Name → labels, of every metric that the services register."""
    found = {}
    call = re.compile(
        r'\.(counters?|gauges?|seconds_gauge|histograms?)\(\s*"(\w+)",\s*"[^"]*",?\s*(?:([A-Z_]+),\s*)?(?:&\[([^\]]*)\])?',
        re.S,
    )
    for file in sorted((ROOT / "crates" / "engine" / "src" / "metrics").glob("*.rs")):
        for kind, name, _buckets, labels in call.findall(file.read_text(encoding="utf-8")):
            names = set(re.findall(r'"(\w+)"', labels))
            endings = ("_bucket", "_sum", "_count") if kind.startswith("histogram") else ("",)
            found |= {name + ending: names for ending in endings}
    return found


def others_series():
    return {
        line
        for file in (MONITORING / "series").glob("*.txt")
        for line in file.read_text(encoding="utf-8").split()
    }


def selectors(expr):
    """Every series of an expression with the names of the labels that its braces ask for."""
    expr = expr.replace("$__rate_interval", "1m")
    expr = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expr)
    for match in re.finditer(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{(?:[^}\"]|\"[^\"]*\")*\})?", blank_strings_outside_braces(expr)):
        name, braces = match.group(1), match.group(2) or ""
        after = expr[match.end():].lstrip()
        before = expr[match.start() - 1: match.start()]
        if name.lower() in KEYWORDS or after.startswith("(") or before.isdigit() or before == "[":
            continue
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", braces))


def blank_strings_outside_braces(expr):
    """Strings that are no matchers (arguments of functions) as blanks of the same length."""
    out, depth, index = [], 0, 0
    for match in re.finditer(r'"[^"]*"|[{}]|.', expr, re.S):
        text = match.group()
        depth += {"{": 1, "}": -1}.get(text, 0)
        out.append(" " * len(text) if text.startswith('"') and not depth else text)
        index = match.end()
    return "".join(out)[:index]


def rules():
    """Every rule: file, kind, name, expression, and its fields by name."""
    for file in sorted((MONITORING / "prometheus" / "rules").glob("*.yml")):
        rule, block = None, None
        for line in [*file.read_text(encoding="utf-8").splitlines(), "      - alert: end"]:
            start = re.match(r"      - (alert|record): (\S+)$", line)
            if start:
                if rule:
                    yield rule
                rule, block = {"file": file.name, "kind": start[1], "name": start[2], "expr": ""}, None
            elif rule is None or not line.strip() or line.lstrip().startswith("#"):
                continue
            elif re.match(r"        expr: \|$", line):
                block = True
            elif re.match(r"        expr: ", line):
                rule["expr"] = line.split("expr: ", 1)[1]
            elif block and line.startswith("          "):
                rule["expr"] += line.strip() + "\n"
            else:
                block = None
                labels = re.match(r"        labels: \{(.*)\}$", line)
                field = re.match(r"          (summary|description|runbook_url): (.*)$", line)
                if labels:
                    rule["severity"] = dict(
                        pair.split(": ") for pair in labels[1].strip().split(", ")
                    ).get("severity")
                if field:
                    rule[field[1]] = field[2].strip('"')


def anchor(title):
    """How GitHub names the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def anchors(file):
    return {
        anchor(line.lstrip("#"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.match(r"#{1,6} ", line)
    }


def dashboards(problems):
    """Every query of every dashboard; notes what is not sound."""
    seen = set()
    for file in sorted((MONITORING / "grafana" / "dashboards").glob("*.json")):
        try:
            dashboard = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            problems.append(f"{file.name}: {error}")
            continue
        if dashboard.get("uid") in seen or not dashboard.get("uid"):
            problems.append(f"{file.name}: its uid is missing or taken")
        seen.add(dashboard.get("uid"))
        ids, taken = set(), set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            if panel["id"] in ids or cells & taken or place["x"] + place["w"] > 24:
                problems.append(f"{file.name}: {panel['title']}: its id or place is taken, or too wide")
            ids.add(panel["id"])
            taken |= cells
            if panel["type"] != "row" and not panel.get("targets"):
                problems.append(f"{file.name}: {panel['title']}: no query")
            for target in panel.get("targets", []):
                yield f"{file.name}: {panel['title']}", target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{file.name}: annotation {annotation['name']}", annotation["expr"]


def main():
    problems = []
    ours, others = own_metrics(), others_series()
    if len(ours) < 40:
        problems.append(f"only {len(ours)} series of ours were found in crates/engine/src/metrics: is the pattern right?")
    every_rule = list(rules())
    recorded = {rule["name"] for rule in every_rule if rule["kind"] == "record"}
    used = set()

    def look(place, expr):
        for name, labels in selectors(expr):
            used.add(name)
            if name in ours:
                unknown = labels - ours[name] - SCRAPED
                if unknown:
                    problems.append(f"{place}: {name} has no label {', '.join(sorted(unknown))}")
            elif name not in others | recorded | BUILT_IN:
                problems.append(f"{place}: there is no series {name}")

    tested = "\n".join(
        file.read_text(encoding="utf-8") for file in (MONITORING / "prometheus" / "tests").glob("*.yml")
    )
    named = {}
    for rule in every_rule:
        place = f"{rule['file']}: {rule['name']}"
        look(place, rule["expr"])
        if rule["kind"] != "alert":
            continue
        if rule.get("severity") not in SEVERITIES:
            problems.append(f"{place}: its severity is none of {', '.join(sorted(SEVERITIES))}")
        for field in ("summary", "description", "runbook_url"):
            if not rule.get(field):
                problems.append(f"{place}: no {field}")
        path, _, section = rule.get("runbook_url", "").partition("#")
        named.setdefault(path, set()).add(section)
        if path and not (ROOT / path).is_file():
            problems.append(f"{place}: there is no {path}")
        elif path and section not in anchors(ROOT / path):
            problems.append(f"{place}: {path} has no section #{section}")
        if not re.search(rf"alertname: {rule['name']}\n\s+exp_alerts:\n", tested):
            problems.append(f"{place}: no test in which it fires")
    for place, expr in dashboards(problems):
        look(place, expr)
    for name in sorted(ours):
        whole = re.sub(r"_(bucket|sum|count)$", "", name)
        if name not in used and not any(f"{whole}{ending}" in used for ending in ("_bucket", "_sum", "_count")):
            problems.append(f"nobody looks at {name}: give it a panel or an alert")
    for name in sorted(recorded - used):
        if not re.search(r"(late|error)_ratio\d", name):  # a window more than the alerts use is no harm
            problems.append(f"nobody looks at the recording rule {name}")
    if problems:
        sys.exit("\n".join(problems))
    alerts = sum(rule["kind"] == "alert" for rule in every_rule)
    print(f"{alerts} alerts, {len(recorded)} recording rules, {len(used)} series")


if __name__ == "__main__":
    main()
