#!/usr/bin/env python3
"""Writes streamgate.json, the dashboard: python3 grafana/build.py

Change it here and run this; a test holds the two equal. Panels stand in the order of the list
below, each as wide as it says, and every metric of docs/metrics.md has a place.
"""

import json
from pathlib import Path

# Of the replicas that are chosen above the panels.
CHOSEN = 'job=~"$job", instance=~"$instance"'
RECORDS = "suffix: rec/s"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def metric(name, labels=""):
    return f"{name}{{{', '.join(filter(None, [CHOSEN, labels]))}}}"


def per_second(name, labels="", by="job"):
    return f"sum by ({by}) (rate({metric(name, labels)}[$__rate_interval]))"


def in_an_hour(name, labels="", by="job"):
    return f"sum by ({by}) (increase({metric(name, labels)}[1h]))"


def quantile(share, histogram):
    buckets = per_second(f"{histogram}_bucket", by="job, le")
    return f"histogram_quantile({share}, {buckets})"


def quantiles(histogram):
    return [(quantile(share, histogram), f"{{{{job}}}} {label}")
            for share, label in [(0.5, "median"), (0.9, "90 %"), (0.99, "99 %")]]


def panel(kind, title, width, height, unit, description, targets, steps=(), **extra):
    """`targets` are pairs of a query and its legend, `steps` pairs of a colour and where it begins;
    below the first it is green, unless that begins nowhere."""
    if not steps or steps[0][1] is not None:
        steps = [("green" if steps else "text", None), *steps]
    thresholds = [{"color": color, "value": value} for color, value in steps]
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": thresholds}}
    defaults |= extra.pop("defaults", {})
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(targets)
        ],
    } | extra


def number(title, unit, description, expr, steps=()):
    """One number for each job, as of now."""
    return panel(
        "stat", title, 4, 4, unit, description, [(expr, "{{job}}")], steps,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto",
            "orientation": "auto", "textMode": "auto",
        },
    )


def graph(title, unit, description, targets, steps=(), width=8, stacked=False, whole=False):
    custom = {
        "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stacked else 8,
        "showPoints": "never", "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    defaults = {"custom": custom, "color": {"mode": "palette-classic"}, "min": 0}
    if whole:
        defaults["decimals"] = 0
    return panel(
        "timeseries", title, width, 8, unit, description, targets, steps,
        defaults=defaults,
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


AGE = [("yellow", 300), ("red", 6 * 3600)]
FAILED = per_second("streamgate_invocations_total", 'outcome!="success"')
INVOKED = per_second("streamgate_invocations_total")
READING = 'operation=~"DescribeStream|GetRecords|GetShardIterator"'
READS_THROTTLED = per_second("streamgate_aws_requests_total", f'{READING}, outcome="throttled"')
READS = per_second("streamgate_aws_requests_total", READING)

ROWS = {
    "Overview": [
        number("Oldest record not handled", "s",
               "How far behind the stream. Records leave it at 24 hours. 0 also while nobody reads: look to the right.",
               f"max by (job) ({metric('streamgate_iterator_age_seconds')})", AGE),
        number("Shards held", "none",
               "Shards that are read, over all replicas. 0 means that nobody reads.",
               f"sum by (job) ({metric('streamgate_leases_held')})", [("red", None), ("green", 1)]),
        number("Since the last read", "s",
               "How long ago the stream last answered. Long while the handler is waited for, or when reads fail.",
               f"time() - max by (job) ({metric('streamgate_last_poll_timestamp_seconds')} > 0)",
               [("yellow", 60), ("red", 600)]),
        number("Delivered", RECORDS, "Records that the handler took.",
               per_second("streamgate_records_delivered_total")),
        number("Invocations that fail", "percentunit",
               "The share of invocations of the handler that did not succeed. Their batches come again.",
               f"{FAILED} / ({INVOKED} > 0) or 0 * {INVOKED}", [("yellow", 0.01), ("red", 0.1)]),
        number("Gaps since the start", "none",
               "Stretches of shards that left the stream before they were read: their records are lost to this consumer.",
               f"sum by (job) ({metric('streamgate_gaps_total')})", [("red", 1)]),
    ],
    "Lag": [
        graph("Oldest record not handled", "s",
              "The age of the oldest record not handled, over all shards. The lines are at 5 minutes and 6 hours, as the alerts are.",
              [(f"max by (job) ({metric('streamgate_iterator_age_seconds')})", "{{job}}")], AGE, width=12),
        graph("Delivery delay", "s",
              "From a record's write to the end of its delivery. DynamoDB rounds write times down to the second, so up to a second is nothing.",
              quantiles("streamgate_delivery_delay_seconds"), width=12),
    ],
    "Throughput": [
        graph("Records", RECORDS,
              "Read from the stream, handed to the handler (each attempt counts again), and taken by it. Own are Streamgate's own progress items where the table streams to itself; filtered are those that FILTER_CRITERIA leaves out, before the start those older than the starting position. None of these is delivered.",
              [(per_second(f"streamgate_records_{name}_total"), f"{{{{job}}}} {legend}")
               for name, legend in [("polled", "read"), ("invoked", "handed over"), ("delivered", "delivered"),
                                    ("filtered", "filtered"), ("own", "own"), ("before_start", "before the start")]], width=12),
        graph("Batch size", "none",
              "Records in a batch at its first attempt, up to BATCH_SIZE. Small ones at a long delay: raise the batching window or look at the handler.",
              quantiles("streamgate_batch_records"), width=12),
        graph("Handler duration", "s",
              "How long invocations took, those that failed too. Near the time-out batches are about to come again while the handler still works on them.",
              [*quantiles("streamgate_invocation_duration_seconds"),
               (f"max by (job) ({metric('streamgate_handler_timeout_seconds')})", "{{job}} HANDLER_TIMEOUT")], width=12),
        graph("Records in memory", "bytes",
              "What has been read and waits for the handler. At MAX_BUFFERED_BYTES (64 MiB by default) reading waits too, so a flat top means a slow handler.",
              [(metric("streamgate_buffered_bytes"), "{{job}} {{instance}}")], width=12),
    ],
    "Failures": [
        graph("Invocations by outcome", "reqps",
              "error: the handler answered that it failed. timeout: no answer within HANDLER_TIMEOUT. unreachable: no connection, or it broke.",
              [(per_second("streamgate_invocations_total", by="job, outcome"), "{{job}} {{outcome}}")], stacked=True),
        graph("Records in failed invocations", RECORDS,
              "Each attempt counts again, so a batch that never passes keeps this up.",
              [(per_second("streamgate_records_failed_total"), "{{job}}")]),
        graph("Records given up", RECORDS,
              "Dropped by MAXIMUM_RETRY_ATTEMPTS (retries) or MAXIMUM_RECORD_AGE_IN_SECONDS (age), as ON_FAILURE=none has it, or kept with their payload as dead letters: the handler never took them. Attempts are those to keep or post them.",
              [(per_second("streamgate_records_dropped_total", by="job, reason"), "{{job}} {{reason}}"),
               (per_second("streamgate_records_dead_lettered_total"), "{{job}} kept"),
               (per_second("streamgate_dead_letter_attempts_total", by="job, outcome"), "{{job}} attempts {{outcome}}")]),
        graph("Shards by state", "none",
              "retrying: its batch has failed and comes again, nothing after it is delivered. waiting: for its parent to be delivered.",
              [(f"sum by (job, state) ({metric('streamgate_shards')})", "{{job}} {{state}}")], whole=True),
        graph("Reads tried again", "reqps",
              "Reads of the stream that did not work, by why. An expired_iterator now and then is normal; trimmed is a gap.",
              [(per_second("streamgate_read_retries_total", by="job, reason"), "{{job}} {{reason}}")], width=12, stacked=True),
        graph("Gaps by replica", "none",
              "Stretches of shards lost to this consumer since each process started. Any at all is bad.",
              [(metric("streamgate_gaps_total"), "{{job}} {{instance}}")], [("red", 1)], width=12, whole=True),
    ],
    "Leases and progress": [
        graph("Shards held", "none",
              "Leases by replica. They share the shards by what these weigh, so numbers may differ; one that holds none has come when there were fewer shards than replicas.",
              [(metric("streamgate_leases_held"), "{{job}} {{instance}}")], stacked=True, whole=True),
        graph("Leases taken, handed over and lost in an hour", "none",
              "Taken at a start, for new shards, and by whoever is handed one. Handed over at a stop or to share the work: nothing comes twice. Lost means that others took them or life could not be shown; one loss counts all its shards.",
              [(in_an_hour("streamgate_leases_taken_total"), "{{job}} taken"),
               (in_an_hour("streamgate_leases_handed_over_total"), "{{job}} handed over"),
               (in_an_hour("streamgate_leases_lost_total"), "{{job}} lost")]),
        graph("Leader", "none",
              "The replica that finds new shards and gives away those that nobody has. It changes when that one leaves; reading does not wait for it. With none for minutes the shards of replicas that died stay unread.",
              [(metric("streamgate_leader") + " > 0", "{{job}} {{instance}}")], stacked=True, whole=True),
        graph("Positions written", "wps",
              "Writes of shards' positions by outcome. While they fail, what was delivered since comes again after a crash.",
              [(per_second("streamgate_checkpoints_total", by="job, outcome"), "{{job}} {{outcome}}")], width=12, stacked=True),
        graph("Since the last position", "s",
              "How long ago a position was last written. It rises on an idle stream; it must not while records are delivered.",
              [(f"time() - max by (job) ({metric('streamgate_last_checkpoint_timestamp_seconds')} > 0)", "{{job}}")], width=12),
    ],
    "AWS calls and their cost": [
        graph("Calls by operation", "reqps",
              "Attempts of AWS calls by the consumer; each try counts.",
              [(per_second("streamgate_aws_requests_total", by="job, operation"), "{{job}} {{operation}}")], width=12, stacked=True),
        graph("Calls that did not work", "reqps",
              "By operation and outcome. A refused condition (condition_failed) is an answer and not shown.",
              [(per_second("streamgate_aws_requests_total", 'outcome!~"ok|condition_failed"', by="job, operation, outcome"),
                "{{job}} {{operation}} {{outcome}}")], width=12),
        graph("GetRecords in an hour", "short",
              "Reads are paid for by the call, empty ones too. An idle shard takes 3,600 an hour at the default POLL_INTERVAL_MAX.",
              [(in_an_hour("streamgate_aws_requests_total", 'operation="GetRecords"'), "{{job}}")]),
        graph("Reads throttled", "percentunit",
              "The share of calls on the stream that were throttled. A shard serves two readers well, one where the table is a global one.",
              [(f"{READS_THROTTLED} / {READS}", "{{job}}")], [("red", 0.1)]),
        graph("Write units in an hour", "short",
              "What keeping progress costs the table, as DynamoDB tells it: at the api, or at a consumer without one. An idle replica takes 1,080 at the default FAILOVER_TIME; docs/costs.md has the rest.",
              [(in_an_hour("streamgate_table_write_units_total"), "{{job}}")]),
    ],
    "Api": [
        graph("Requests by route", "reqps",
              "What consumers ask of the api. heartbeat is their sign of life; other is a request without the token or to a path there is not.",
              [(per_second("streamgate_progress_requests_total", by="job, route"), "{{job}} {{route}}")], stacked=True),
        graph("Requests not answered with ok", "reqps",
              "By outcome. lease_lost is how two look who want the same lease, or one that was taken for dead; unauthorized is another token.",
              [(per_second("streamgate_progress_requests_total", 'outcome!="ok"', by="job, outcome"), "{{job}} {{outcome}}")]),
        graph("Calls on the table", "reqps",
              "Attempts of AWS calls by the api, by operation and outcome; each try counts.",
              [(per_second("streamgate_table_requests_total", by="job, operation, outcome") + " > 0",
                "{{job}} {{operation}} {{outcome}}")]),
    ],
    "Process": [
        graph("CPU", "percentunit", "The share of one core that each process takes.",
              [(f"rate({metric('process_cpu_seconds_total')}[$__rate_interval])", "{{job}} {{instance}}")], width=6),
        graph("Memory", "bytes", "What each process holds in memory (resident).",
              [(metric("process_resident_memory_bytes"), "{{job}} {{instance}}")], width=6),
        graph("File descriptors", "percentunit", "Open file descriptors, as a share of what the process may open.",
              [(f"{metric('process_open_fds')} / {metric('process_max_fds')}", "{{job}} {{instance}}")],
              [("red", 0.8)], width=6),
        graph("Uptime", "s", "Since each process started. A saw is a restart again and again.",
              [(f"time() - {metric('process_start_time_seconds')}", "{{job}} {{instance}}")], width=6),
        graph("Trace spans", "cps",
              "Spans of batches by what became of them. failed: the collector refused them or did not answer; dropped: too many waited. No delivery waits for either. Nothing where traces are off.",
              [(per_second("streamgate_trace_spans_total", by="job, outcome"), "{{job}} {{outcome}}")], width=24),
    ],
}


def placed():
    """The panels with their places: left to right, and a new line where one is full."""
    panels = []
    y = 0
    for title, members in ROWS.items():
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        x = height = 0
        for member in members:
            size = member["gridPos"]
            if x + size["w"] > 24:
                x, y = 0, y + height
            panels.append(member | {"gridPos": {"x": x, "y": y} | size})
            x += size["w"]
            height = size["h"]
        y += height
    return [{"id": number} | panel for number, panel in enumerate(panels, start=1)]


def variable(name, label, query):
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE,
        "definition": query, "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard():
    return {
        "uid": "streamgate",
        "title": "Streamgate",
        "description": "Consumers of DynamoDB streams and their apis. What the metrics mean: docs/metrics.md; what to do: docs/runbooks.md.",
        "tags": ["streamgate", "dynamodb"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [{
            "name": "Alerts", "enable": True, "iconColor": "red", "datasource": DATASOURCE,
            "expr": 'ALERTS{alertname=~"Streamgate.+", alertstate="firing", job=~"$job"}',
            "titleFormat": "{{alertname}}", "textFormat": "{{job}}", "step": "60s",
        }]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            variable("job", "Job", "label_values(streamgate_build_info, job)"),
            variable("instance", "Replica", 'label_values(streamgate_build_info{job=~"$job"}, instance)'),
        ]},
        "panels": placed(),
    }


def text():
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "streamgate.json").write_text(text())
