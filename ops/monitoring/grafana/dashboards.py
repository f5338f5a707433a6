#!/usr/bin/env python3
"""Writes the three dashboards of Grafana: `python3 ops/monitoring/grafana/dashboards.py`, or with
--check only says whether they are as this would write them.

A dashboard is a list of rows, a row a title and its panels, a panel a line or two here and fifty in the
JSON that Grafana reads. So change this, not the JSON: `make check` compares.

Every query must answer with something as soon as the system runs, be it 0: an empty panel cannot be told
from a broken one. ops/scripts/check-dashboards.py asks a running Prometheus for each.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # of Grafana's grid


def panel(kind, title, unit, queries, width=8, height=7, about="", options=None, **defaults):
    """One panel. `queries` is one expression or a list of (expression, legend)."""
    if isinstance(queries, str):
        queries = [(queries, "")]
    custom = {"lineWidth": 1, "fillOpacity": 12, "showPoints": "never", "spanNulls": 120000}
    if defaults.pop("stacked", False):
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    field = {"unit": unit, **defaults}
    if kind == "timeseries":
        field["custom"] = custom
        field.setdefault("min", 0)
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": options or {},
        "targets": [
            {
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
                "refId": chr(ord("A") + number),
                "instant": kind in ("stat", "bargauge", "table"),
                "range": kind not in ("stat", "bargauge", "table"),
                **({"format": "table"} if kind == "table" else {}),
                **({"format": "heatmap"} if kind == "heatmap" else {}),
            }
            for number, (expr, legend) in enumerate(queries)
        ],
    }


def steps(*limits):
    """Colours by value: (None, "green"), (5, "red") …"""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in limits]}


GOOD_ABOVE_0 = steps((None, "red"), (1, "green"))
BAD_ABOVE_0 = steps((None, "green"), (1, "red"))
NEUTRAL = steps((None, "text"))


def stat(title, expr, unit="short", thresholds=NEUTRAL, about="", width=3, **defaults):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
    }
    return panel("stat", title, unit, expr, width, 4, about, options, thresholds=thresholds, **defaults)


def lines(title, unit, queries, about="", width=8, **defaults):
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, unit, queries, width, 8, about, options, **defaults)


def heat(title, metric, about="", width=8):
    options = {
        "calculate": False,
        "yAxis": {"unit": "s"},
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "cellGap": 1,
    }
    expr = f"sum by (le) (increase({metric}_bucket[$__rate_interval]))"
    return panel("heatmap", title, "s", [(expr, "{{le}}")], width, 8, about, options)


def quantiles(metric, by="", where=""):
    """The usual three lines of a histogram."""
    label = f", {by}" if by else ""
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (f"histogram_quantile({q}, sum by (le{label}) (rate({metric}_bucket{where}[$__rate_interval])))", name + legend)
        for q, name in ((0.5, "half within"), (0.95, "95 % within"), (0.99, "99 % within"))
    ]


def rate(metric, by, where=""):
    return [(f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))", f"{{{{{by}}}}}")]


def mean(metric):
    # Nothing in the interval is 0, not a gap.
    return f"sum(rate({metric}_sum[$__rate_interval])) / (sum(rate({metric}_count[$__rate_interval])) > 0) or vector(0)"


def dashboard(uid, title, about, rows, variables=()):
    panels, number, y = [], 0, 0
    for name, row in rows:
        number += 1
        panels.append({"type": "row", "id": number, "title": name, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y, x, tallest = y + 1, 0, 0
        for one in row:
            number += 1
            place = one["gridPos"]
            if x + place["w"] > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            panels.append({"id": number, **one, "gridPos": {"x": x, "y": y, **place}})
            x, tallest = x + place["w"], max(tallest, place["h"])
        y += tallest
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus",
              "current": {"text": "Prometheus", "value": "prometheus"}, "hide": 0}
    return {
        "uid": uid, "title": title, "description": about, "tags": ["orchestrator"],
        "schemaVersion": 39, "version": 1, "id": None, "editable": True, "timezone": "browser",
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "graphTooltip": 1,
        "links": [{"type": "dashboards", "title": "Orchestrator", "tags": ["orchestrator"], "asDropdown": False,
                   "keepTime": True, "includeVars": False, "targetBlank": False, "icon": "external link"}],
        "annotations": {"list": [{
            "name": "Alerts", "datasource": SOURCE, "enable": True, "iconColor": "red", "hide": False,
            "expr": 'ALERTS{alertstate="firing",severity=~"critical|warning"}', "titleFormat": "{{alertname}}",
            "textFormat": "{{job}} {{instance}}", "step": "60s",
        }]},
        "templating": {"list": [source, *variables]},
        "panels": panels,
    }


def alive(job):
    return f'count(up{{job="orchestrator-{job}"}} == 1) or vector(0)'


OVERVIEW = dashboard(
    "orchestrator-overview", "Orchestrator: overview",
    "Is it there, does it keep its promises, what is it doing.",
    [
        ("Is it there", [
            stat("APIs", alive("api"), thresholds=GOOD_ABOVE_0, about="Replicas that answer."),
            stat("Schedulers", alive("scheduler"), thresholds=GOOD_ABOVE_0, about="Replicas that answer."),
            stat("Workers", alive("worker"), thresholds=GOOD_ABOVE_0, about="Replicas that answer."),
            stat("PostgreSQL", "max(pg_up) or vector(0)", thresholds=GOOD_ABOVE_0, about="1: it answers."),
            stat("Redis", "max(redis_up) or vector(0)", thresholds=steps((None, "orange"), (1, "green")),
                 about="1: it answers. Without it all goes on by polling."),
            stat("Alerts", 'count(ALERTS{alertstate="firing",severity=~"critical|warning"}) or vector(0)',
                 thresholds=BAD_ABOVE_0, about="Alerts that fire now."),
            stat("Invariants violated", "sum(max by (invariant) (orchestrator_invariant_violations))",
                 thresholds=BAD_ABOVE_0, about="Rows that contradict what must always be true."),
            stat("Versions", "count(count by (version) (orchestrator_build_info))",
                 thresholds=steps((None, "green"), (2, "orange")), about="More than 1 while one is rolled out."),
        ]),
        ("Does it keep its promises", [
            stat("Occurrences that start within 5 s, 30 days",
                 "1 - orchestrator:occurrences:late_ratio30d", "percentunit",
                 steps((None, "red"), (0.999, "green")), "99.9 % are promised.", 6, decimals=3),
            stat("Allowance left", "1 - orchestrator:occurrences:late_ratio30d / 0.001", "percentunit",
                 steps((None, "red"), (0, "orange"), (0.25, "green")),
                 "Of the 0.1 % that may be late in 30 days.", 6, decimals=0),
            stat("Requests without a fault of ours, 30 days",
                 "1 - orchestrator:http_requests:error_ratio30d", "percentunit",
                 steps((None, "red"), (0.999, "green")), "99.9 % are promised.", 6, decimals=3),
            stat("Allowance left", "1 - orchestrator:http_requests:error_ratio30d / 0.001", "percentunit",
                 steps((None, "red"), (0, "orange"), (0.25, "green")),
                 "Of the 0.1 % of requests that may fail in 30 days.", 6, decimals=0),
            lines("How fast the allowance is used", "short", [
                ("(orchestrator:occurrences:late_ratio1h or vector(0)) / 0.001", "late occurrences, 1 h"),
                ("(orchestrator:occurrences:late_ratio6h or vector(0)) / 0.001", "late occurrences, 6 h"),
                ("(orchestrator:http_requests:error_ratio1h or vector(0)) / 0.001", "failed requests, 1 h"),
                ("(orchestrator:http_requests:error_ratio6h or vector(0)) / 0.001", "failed requests, 6 h"),
            ], "1 uses it up in exactly 30 days; 14.4 wakes somebody.", 12),
            lines("Drift: from an occurrence's time to its firing", "s",
                  quantiles("orchestrator_scheduler_drift_seconds"), width=12),
        ]),
        ("What it is doing", [
            stat("In the queue", "max(orchestrator_queue_depth)", about="Due, and no worker has it.", width=4),
            stat("Oldest due", "max(orchestrator_queue_oldest_due_seconds)", "s",
                 steps((None, "green"), (60, "orange"), (900, "red")), "How long the oldest due run has waited.", 4),
            stat("Catching up", "max(orchestrator_catch_up_backlog)", about="Missed runs that wait for their turn.", width=4),
            stat("Waiting", "max(orchestrator_runs_waiting)", about="For a time, an event or an approval.", width=4),
            stat("Slots taken", "sum(orchestrator_worker_active_jobs) / sum(orchestrator_worker_capacity)",
                 "percentunit", steps((None, "green"), (0.9, "orange")), "Over all workers.", 4),
            stat("Next firing in", "max(orchestrator_next_fire_timestamp_seconds > 0) - time() or vector(0)", "s",
                 steps((None, "red"), (-60, "text")), "Below 0: a task is due. 0 as well when no task has a next time.", 4),
            lines("Runs that ended", "ops", rate("orchestrator_tasks_total", "status"), stacked=True),
            lines("Runs made by schedules", "ops", rate("orchestrator_schedule_triggers_total", "kind"), stacked=True),
            lines("Occurrences without a run of their own", "ops",
                  rate("orchestrator_missed_schedules_total", "reason"), "By what became of them.", stacked=True),
            lines("Queue", "short", [("max(orchestrator_queue_depth)", "due"),
                                     ("max(orchestrator_catch_up_backlog)", "catching up")]),
            lines("Events", "ops", rate("orchestrator_events_total", "direction"),
                  "in: accepted. out: published to the stream."),
            lines("Requests", "reqps", rate("orchestrator_http_requests_total", "status"), stacked=True),
        ]),
    ],
)

TOOL = {"name": "tool", "type": "query", "label": "Tool", "datasource": SOURCE, "hide": 0, "refresh": 2,
        "query": {"query": "label_values(orchestrator_pipeline_steps_total, tool)", "refId": "tool"},
        "definition": "label_values(orchestrator_pipeline_steps_total, tool)",
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 1}
OF_TOOL = '{tool=~"$tool"}'

TASKS = dashboard(
    "orchestrator-tasks", "Orchestrator: task performance",
    "How punctual, how fast and how well runs are.",
    [
        ("Punctual", [
            heat("Drift: time to firing", "orchestrator_scheduler_drift_seconds", "From an occurrence's time to the commit that fired it."),
            heat("Pickup: may start to lease", "orchestrator_worker_pickup_seconds", "From the time a run may start until a worker has it."),
            lines("Pickup", "s", quantiles("orchestrator_worker_pickup_seconds")),
            lines("Start of occurrences", "s", quantiles("orchestrator_occurrence_start_seconds")),
            lines("Oldest due run", "s", [("max(orchestrator_queue_oldest_due_seconds)", "waits")]),
            lines("Late occurrences", "percentunit", [
                ("orchestrator:occurrences:late_ratio5m or vector(0)", "5 min"),
                ("orchestrator:occurrences:late_ratio1h or vector(0)", "1 h"),
                ("orchestrator:occurrences:late_ratio1d or vector(0)", "1 day")], "More than 5 s late, or given up."),
            lines("Fired in one transaction", "short", [(mean("orchestrator_scheduler_fire_batch_size"), "tasks, mean")]),
        ]),
        ("Fast", [
            heat("Runs: first start to end", "orchestrator_task_duration_seconds", "Waits and retries included."),
            lines("Runs: first start to end", "s", quantiles("orchestrator_task_duration_seconds")),
            lines("One attempt", "s", quantiles("orchestrator_worker_job_duration_seconds"), "From its lease to its result."),
            lines("Slots", "short", [("sum(orchestrator_worker_active_jobs)", "taken"),
                                     ("sum(orchestrator_worker_capacity)", "there are")]),
            lines("Slots taken, by worker", "percentunit",
                  [("orchestrator_worker_active_jobs / orchestrator_worker_capacity", "{{instance}}")], max=1),
            lines("Runs at a time", "short", [(mean("orchestrator_worker_lease_batch_size"), "leased, mean"),
                                              (mean("orchestrator_worker_commit_batch_size"), "written back, mean")],
                  "How many runs a statement leases, and a transaction writes back."),
        ]),
        ("Well", [
            lines("Runs that fail", "percentunit", [
                ('sum(rate(orchestrator_tasks_total{status="failed"}[$__rate_interval])) / (sum(rate(orchestrator_tasks_total{status=~"failed|succeeded"}[$__rate_interval])) > 0) or vector(0)',
                 "of those that end by themselves")], max=1),
            lines("Runs by how they ended", "short", [
                ("sum by (status) (increase(orchestrator_tasks_total[$__rate_interval]))", "{{status}}")], stacked=True),
            lines("What went wrong", "ops", rate("orchestrator_worker_errors_total", "reason"),
                  "Attempts, not runs: what is tried again counts each time."),
            lines("Steps", "ops", rate("orchestrator_pipeline_steps_total", "tool", OF_TOOL)),
            lines("Steps that fail", "percentunit", [(
                'sum by (tool) (rate(orchestrator_pipeline_steps_total{tool=~"$tool",status="failed"}[$__rate_interval])) / sum by (tool) (rate(orchestrator_pipeline_steps_total{tool=~"$tool"}[$__rate_interval])) or 0 * sum by (tool) (rate(orchestrator_pipeline_steps_total{tool=~"$tool"}[$__rate_interval]))',
                "{{tool}}")], max=1),
            lines("Leases", "short", [
                ('sum(increase(orchestrator_worker_errors_total{reason="lease_lost"}[$__rate_interval]))', "lost"),
                ("sum(increase(orchestrator_stale_tokens_total[$__rate_interval]))", "write-backs refused"),
                ("sum(increase(orchestrator_leases_reclaimed_total[$__rate_interval]))", "taken back"),
                ("sum(increase(orchestrator_worker_leases_returned_total[$__rate_interval]))", "returned at a stop")],
                  "What is lost is done again; what is refused was never written."),
            lines("Catching up", "short", [("max(orchestrator_catch_up_backlog)", "missed runs that wait")]),
            lines("Tokens of language models", "short",
                  [("sum by (kind) (increase(orchestrator_llm_tokens_total[1h]))", "{{kind}}, last hour")]),
            lines("Event lag", "s", [("max(orchestrator_event_lag_seconds)", "oldest event without its runs")]),
        ]),
    ],
    [TOOL],
)

DISK = '{fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|fuse.*",mountpoint!~"/(boot|proc|sys|run)(/.*)?"}'

SYSTEM = dashboard(
    "orchestrator-system", "Orchestrator: system health",
    "The processes, their databases, the machines, and the monitoring itself.",
    [
        ("Processes", [
            lines("Up", "short", [("sum by (job) (up)", "{{job}}")], "Targets that answer.", 6),
            lines("Uptime", "s", [('time() - process_start_time_seconds{job=~"orchestrator-.*"}', "{{job}} {{instance}}")], width=6),
            lines("Memory", "bytes", [('process_resident_memory_bytes{job=~"orchestrator-.*"}', "{{job}} {{instance}}")], width=6),
            lines("Database connections of each", "short",
                  [('orchestrator_database_connections{state="used"}', "{{job}} {{instance}} used"),
                   ('max(orchestrator_database_connections{state="max"})', "at most")], width=6),
            lines("Chores that failed", "short",
                  [("sum by (duty) (increase(orchestrator_upkeep_errors_total[1h])) or vector(0)", "{{duty}}")], width=6),
            lines("Redis, seen by services", "short", [
                ("min by (job) (orchestrator_redis_up)", "{{job}} reaches it"),
                ("sum(increase(orchestrator_redis_errors_total[$__rate_interval]))", "failed calls")], width=6),
            lines("Invariants violated", "short",
                  [("max by (invariant) (orchestrator_invariant_violations)", "{{invariant}}")], width=6),
            stat("Versions", "count by (service, version) (orchestrator_build_info)", width=6),
        ]),
        ("API", [
            lines("Slowest routes, 95 % within", "s", [(
                "topk(8, histogram_quantile(0.95, sum by (le, route) (rate(orchestrator_http_request_duration_seconds_bucket[$__rate_interval]))) > 0)",
                "{{route}}")], width=6),
            lines("Requests by route", "reqps",
                  [("topk(8, sum by (method, route) (rate(orchestrator_http_requests_total[$__rate_interval])))", "{{method}} {{route}}")], width=6),
            lines("Refused", "reqps", rate("orchestrator_http_refused_total", "reason"), width=6),
        ]),
        ("PostgreSQL", [
            lines("Connections", "short", [
                ("pg_orchestrator_server_connections", "taken"), ("pg_orchestrator_server_connections_max", "there are")], width=6),
            lines("Connections by state", "short",
                  [("sum by (state) (pg_stat_activity_count)", "{{state}}")], width=6, stacked=True),
            lines("Transactions", "ops", [
                ('sum(rate(pg_stat_database_xact_commit{datname!=""}[$__rate_interval]))', "committed"),
                ('sum(rate(pg_stat_database_xact_rollback{datname!=""}[$__rate_interval]))', "rolled back")], width=6),
            lines("Rows", "ops", [
                ('sum(rate(pg_stat_database_tup_inserted{datname!=""}[$__rate_interval]))', "inserted"),
                ('sum(rate(pg_stat_database_tup_updated{datname!=""}[$__rate_interval]))', "updated"),
                ('sum(rate(pg_stat_database_tup_deleted{datname!=""}[$__rate_interval]))', "deleted")], width=6),
            lines("Oldest transaction", "s", [
                ("pg_orchestrator_server_oldest_transaction_seconds", "open"),
                ("pg_orchestrator_server_idle_in_transaction_seconds", "idle")],
                  "Nothing newer is vacuumed.", 6),
            lines("Locks", "short", [
                ("sum by (mode) (pg_locks_count) > 0", "{{mode}}"),
                ("pg_orchestrator_server_waiting_for_lock", "sessions that wait"),
                ("sum(increase(pg_stat_database_deadlocks[$__rate_interval]))", "deadlocks")], width=6),
            lines("Found in memory", "percentunit", [(
                'sum(rate(pg_stat_database_blks_hit{datname!=""}[$__rate_interval])) / (sum(rate(pg_stat_database_blks_hit{datname!=""}[$__rate_interval])) + sum(rate(pg_stat_database_blks_read{datname!=""}[$__rate_interval])) > 0)',
                "of pages")], width=6, max=1),
            lines("Dead rows of the queue", "short", [
                ('pg_orchestrator_table_dead_rows{relation="due_work"}', "dead"),
                ('pg_orchestrator_table_live_rows{relation="due_work"}', "live")], width=6),
            lines("Largest tables", "bytes", [("topk(8, pg_orchestrator_table_size_bytes)", "{{relation}}")], "With indexes.", 6),
            lines("Size", "bytes", [('pg_database_size_bytes{datname!~"template.*"}', "{{datname}}")], width=6),
            lines("Replication", "short", [
                ("pg_orchestrator_replication_standbys", "standbys"),
                ("pg_orchestrator_replication_lag_seconds", "slowest is behind, s"),
                ("pg_orchestrator_replication_slots_inactive", "slots that nobody reads")], width=6),
            lines("WAL that waits", "bytes", [
                ("pg_orchestrator_replication_lag_bytes", "for the slowest standby"),
                ("pg_orchestrator_replication_slot_retained_bytes", "for the slowest slot")], width=6),
            lines("WAL archive", "short", [
                ("pg_orchestrator_archiver_enabled", "on"),
                ("increase(pg_orchestrator_archiver_archived[1h])", "files in an hour"),
                ("increase(pg_orchestrator_archiver_failed[1h])", "failures in an hour")], width=6),
            lines("Transaction ids used", "percentunit",
                  [("pg_orchestrator_server_transaction_id_age / 2147483648", "of 2^31")], width=6),
        ]),
        ("Redis", [
            lines("Memory", "bytes", [("redis_memory_used_bytes", "used"),
                                      ("redis_memory_max_bytes", "at most (0: no limit)")], width=6),
            lines("Commands", "ops", [("sum(rate(redis_commands_processed_total[$__rate_interval]))", "processed")], width=6),
            lines("Streams", "short", [("redis_stream_length", "{{stream}}")], "Entries kept, also those that are done with.", 6),
            lines("Events not acknowledged", "short",
                  [('redis_stream_group_messages_pending{stream="orchestrator:events"}', "{{group}}")], width=6),
            lines("Clients", "short", [("redis_connected_clients", "connected"),
                                       ("increase(redis_rejected_connections_total[$__rate_interval])", "rejected")], width=6),
            lines("Keys lost", "short", [("increase(redis_evicted_keys_total[$__rate_interval])", "evicted")], width=6),
        ]),
        ("Machines", [
            lines("Processor", "percentunit", [
                ('1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))', "{{instance}} busy"),
                ('avg by (instance) (rate(node_cpu_seconds_total{mode="iowait"}[$__rate_interval]))', "{{instance}} waits for disks")],
                  width=6, max=1),
            lines("Memory available", "percentunit",
                  [("node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}")], width=6, max=1),
            lines("Disk free", "percentunit",
                  [(f"node_filesystem_avail_bytes{DISK} / node_filesystem_size_bytes{DISK}", "{{instance}} {{mountpoint}}")],
                  width=6, max=1),
            lines("Disk busy", "percentunit",
                  [("topk(6, rate(node_disk_io_time_seconds_total[$__rate_interval]))", "{{instance}} {{device}}")], width=6),
            lines("Network", "Bps", [
                ('sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))', "{{instance}} in"),
                ('sum by (instance) (rate(node_network_transmit_bytes_total{device!="lo"}[$__rate_interval]))', "{{instance}} out")], width=6),
            lines("Clock off by", "s", [("abs(node_timex_offset_seconds)", "{{instance}}")], width=6),
        ]),
        ("Monitoring", [
            lines("Scrapes take", "s", [("max by (job) (scrape_duration_seconds)", "{{job}}")], width=6),
            lines("Series", "short", [("prometheus_tsdb_head_series", "in memory")], width=6),
            lines("Messages of Alertmanager", "short", [
                ("sum(increase(alertmanager_notifications_total[$__rate_interval]))", "sent"),
                ("sum(increase(alertmanager_notifications_failed_total[$__rate_interval]))", "failed")], width=6),
            lines("Alerts", "short", [
                ('count by (alertstate) (ALERTS{severity=~"critical|warning"}) or vector(0)', "{{alertstate}}")], width=6),
        ]),
    ],
)


def main():
    stale = []
    for made in (OVERVIEW, TASKS, SYSTEM):
        file = FOLDER / f"{made['uid'].removeprefix('orchestrator-')}.json"
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        if "--check" in sys.argv:
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                stale.append(file.name)
        else:
            file.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"{', '.join(stale)}: not as dashboards.py writes it; run it, or bring your change into it")


if __name__ == "__main__":
    main()
