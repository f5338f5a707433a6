#!/usr/bin/env python3
"""A load in which everything occurs that dashboards show: tasks of every kind of schedule, failures,
retries, events, manual runs, requests that are refused. Called by try-monitoring.sh.

    ops/scripts/monitoring-load.py URL SECONDS        (the key is taken from ADMIN_API_KEY)
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

ECHO = {"id": "say", "uses": "core.echo", "with": {"text": "hello"}}
FAIL = {"id": "fail", "uses": "core.fail", "with": {"message": "meant to"}}


def fetch(url):
    return {"id": "get", "uses": "http.request", "with": {"url": url}}


def task(name, kind, expr, *pipeline, **others):
    return {"name": name, "title": name, "schedule_kind": kind, "schedule_expr": expr,
            "payload": {"pipeline": list(pipeline)}, **others}


def call(url, path, body=None, key=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def main():
    url, seconds, key = sys.argv[1], int(sys.argv[2]), os.environ["ADMIN_API_KEY"]
    begun = time.monotonic()
    while True:
        try:
            if call(url, "/health/ready") == 200:
                break
        except OSError:
            pass
        if time.monotonic() - begun > 60:
            sys.exit("the API did not get ready within 60 s")
        time.sleep(0.5)
    for one in (
        task("every-two-seconds", "interval", "PT2S", ECHO),
        task("cron", "cron", "*/5 * * * * *", ECHO),
        task("rule", "rrule", "FREQ=SECONDLY;INTERVAL=7", ECHO),
        task("fails", "interval", "PT6S", FAIL, max_retries=1, backoff_strategy="fixed"),
        task("asks-us", "interval", "PT4S", fetch(url + "/health"), max_retries=0),
        task("asks-nobody", "interval", "PT9S", fetch("http://127.0.0.1:9/"), max_retries=0),
        task("event", "event", "order.*", ECHO, policy={"overlap": "allow"}),
    ):
        status = call(url, "/tasks", one, key)
        if status not in (201, 409):
            sys.exit(f"the task {one['name']} was refused: {status}")
    count = 0
    while time.monotonic() - begun < seconds:
        call(url, "/events", {"topic": "order.paid", "payload": {"number": count}}, key)
        call(url, "/tasks/every-two-seconds/run_now", {}, key)
        for path in ("/runs?limit=5", "/tasks", "/tasks/nothing-of-this-name"):
            call(url, path, key=key)
        call(url, "/tasks")  # without a key
        count += 1
        time.sleep(2)


if __name__ == "__main__":
    main()
