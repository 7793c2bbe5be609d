"""The tables of bench/peers: what a run prints, and what docs/performance.md has of it.

Pure: takes what a run kept and gives text. A ratio is made within a round, and its median taken.
"""

from statistics import median

# List price of us-east-1, a GetRecords call; the other two calls cost nothing. As docs/costs.md has it.
GET_RECORDS_DOLLARS = 0.02 / 100_000


def span(values, form="{:,.0f}"):
    """The median, and least and most where there are several."""
    least, middle, most = (form.format(one) for one in (min(values), median(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def grid(head, rows):
    align = "|---|" + "--:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", align, *("| " + " | ".join(row) + " |" for row in rows)])


def ratio(result, part, name, of):
    """The peer's cost over Streamgate's, by what `of` makes of a round's figures."""
    ours, theirs = result[part].get("streamgate", []), result[part][name]
    rounds = [of(other) / of(own) for own, other in zip(ours, theirs) if of(own)]
    return span(rounds, "{:.1f}") if rounds else ""


def peers(result):
    rows = [[f"`{name}`", peer["version"], peer["settings"]] for name, peer in result["peers"].items()]
    return grid(["peer", "version", "settings"], rows)


def backlog(result):
    rows = []
    for name, rounds in result["backlog"].items():
        last = rounds[-1]
        calls = last["calls"]
        rows.append([
            f"`{name}`",
            span([one["records"] / one["cpu"] for one in rounds]),
            ratio(result, "backlog", name, lambda one: one["cpu"]),
            span([one["wall"] for one in rounds], "{:.1f}"),
            span([one["first"] for one in rounds], "{:.1f}"),
            span([one["peak"] for one in rounds]),
            f"{calls['GetRecords']:,} / {calls['GetShardIterator']:,} / {calls['DescribeStream']:,}",
            f"{sum(last['table'].values()):,}",
        ])
    head = ["peer", "records per CPU-second", "CPU, over ours", "wall s", "first record after s", "peak MiB",
            "GetRecords / GetShardIterator / DescribeStream", "calls on the table"]
    return grid(head, rows)


def idle(result):
    rows = []
    for name, rounds in result["idle"].items():
        def hourly(calls):
            return span([calls(one) / one["wall"] * 3600 for one in rounds])
        rows.append([
            f"`{name}`",
            span([one["peak"] for one in rounds]),
            span([one["cpu"] / one["wall"] * 100 for one in rounds], "{:.1f}"),
            hourly(lambda one: one["calls"]["GetRecords"]),
            span([one["cpu"] / max(one["calls"]["GetRecords"], 1) * 1e6 for one in rounds]),
            hourly(lambda one: sum(one["table"].values())),
            span([one["threads"] for one in rounds]),
            span([one["settled"] for one in rounds], "{:.0f}"),
        ])
    head = ["peer", "peak MiB", "CPU, % of a core", "GetRecords an hour", "CPU for each, µs", "calls on the table an hour",
            "threads", "s until settled"]
    return grid(head, rows)


def tip(result):
    rows = []
    for name, states in result["tip"].items():
        for state, calls in states.items():
            price = calls["GetRecords"] * GET_RECORDS_DOLLARS
            rows.append([f"`{name}`", state, *(f"{calls[call]:,.0f}" for call in ("GetRecords", "GetShardIterator", "DescribeStream")),
                         f"{price:.5f}", f"{price * 730:.2f}"])
    head = ["peer", "shards are", "GetRecords", "GetShardIterator", "DescribeStream", "$ a shard-hour", "$ a shard and month"]
    return grid(head, rows)


def table_calls(result, part):
    """Which operations the calls on the table were, by peer, of the last round."""
    for name, rounds in result[part].items():
        yield name, ", ".join(f"{operation} {count:,}" for operation, count in sorted(rounds[-1]["table"].items()) if count)


def heading(result):
    print(f"{result['date']}, {result['machine']}")
    for name, peer in result["peers"].items():
        print(f"  {name}: {peer['version']}; {peer['settings']}")
    for name, why in result["skipped"].items():
        print(f"  {name}: skipped: {why}")
    print(flush=True)


def progress(part, name, figures):
    if part == "backlog":
        return (f"backlog  {name:<14} {figures['records'] / figures['cpu']:>9,.0f} records/CPU-s  {figures['wall']:>6.1f} s  "
                f"{figures['cpu']:>6.2f} CPU s  {figures['peak']:>6.0f} MiB")
    return (f"idle     {name:<14} {figures['cpu'] / figures['wall'] * 100:>6.1f} % of a core  {figures['peak']:>6.0f} MiB  "
            f"{figures['calls']['GetRecords'] / figures['wall'] * 3600:>11,.0f} GetRecords/h")


def show(result):
    plan = result["plan"]
    parts = [
        ("backlog", f"A backlog of {plan['shards'] * plan['pages'] * plan['records']:,} records in {plan['shards']} shards:", backlog),
        ("idle", f"{plan['open']:,} idle shards, over {plan['window']:.0f} s:", idle),
        ("tip", f"Calls per shard-hour, {plan['shards']} shards:", tip),
    ]
    for part, title, table in parts:
        if result[part]:
            print(f"\n{title}\n\n{table(result)}")
        if part != "tip":
            for name, calls in table_calls(result, part):
                print(f"  {name}, on the table: {calls}")
    for name, why in result["skipped"].items():
        print(f"{name}: skipped: {why}")
    print(f"\nmedian (least to most) of {plan['rounds']} rounds; load average before each {[round(one, 1) for one in result['load']]}")
