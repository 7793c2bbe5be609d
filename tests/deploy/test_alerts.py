"""The alerts: that Prometheus takes them, fires them when it should, and that each has a runbook."""

import re
import subprocess

import pytest
import yaml

ALERTS = "prometheus/alerts.yaml"
CASES = "prometheus/alerts_test.yaml"
RUNBOOKS = "docs/runbooks.md"


def promtool(*arguments):
    """Gives what it says; fails the test when it does not agree."""
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def load(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def alerts(root):
    """By name."""
    rules = [rule for group in load(root / ALERTS)["groups"] for rule in group["rules"]]
    named = {rule["alert"]: rule for rule in rules}
    assert len(named) == len(rules), "two alerts of one name"
    return named


@pytest.fixture(scope="module")
def cases(root):
    """(alert, whether it fires) of each question that alerts_test.yaml asks."""
    stories = load(root / CASES)["tests"]
    questions = [question for story in stories for question in story["alert_rule_test"]]
    return [(question["alertname"], bool(question.get("exp_alerts"))) for question in questions]


def names_of_metrics(expression):
    # Strings first: a label's value may look like anything.
    return set(re.findall(r"\b(?:streamgate|process)_\w+", re.sub(r'"[^"]*"', "", expression)))


def documented(root):
    """The names in the tables of docs/metrics.md, histograms with their three suffixes."""
    tables = re.findall(r"^\| `(streamgate_\w+)` \| (\w+) \|", (root / "docs/metrics.md").read_text(), re.M)
    assert len(tables) > 20, "the tables of docs/metrics.md are not what they were: this test finds no names"
    suffixes = {"histogram": ["_bucket", "_sum", "_count"]}
    return {name + suffix for name, kind in tables for suffix in suffixes.get(kind, [""])}


def test_prometheus_takes_the_rules(root):
    promtool("check", "rules", str(root / ALERTS))


def test_alerts_fire_when_they_should_and_only_then(root):
    promtool("test", "rules", str(root / CASES))


def test_every_alert_is_seen_firing_and_seen_silent(alerts, cases):
    for fires, what in [(True, "in which it fires"), (False, "in which it does not")]:
        seen = {name for name, fired in cases if fired == fires}
        assert not set(alerts) - seen, f"add a case to {CASES} {what}: {sorted(set(alerts) - seen)}"
        assert not seen - set(alerts), f"{CASES} asks for alerts that {ALERTS} does not have: {sorted(seen - set(alerts))}"


def test_every_alert_says_what_it_means(alerts):
    for name, rule in alerts.items():
        assert name.startswith("Streamgate"), name
        assert rule["labels"]["severity"] in ["critical", "warning"], name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name
        assert rule["annotations"]["description"].endswith("."), f"{name}: its description is no sentence"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert(root, alerts):
    headings = re.findall(r"^## (.+)$", (root / RUNBOOKS).read_text(), re.M)
    assert headings == list(alerts), f"the sections of {RUNBOOKS} are the alerts of {ALERTS}, in their order"
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"{RUNBOOKS}#{name.lower()}", name


def test_every_metric_of_the_alerts_is_there(root, alerts):
    for name, rule in alerts.items():
        metrics = names_of_metrics(rule["expr"])
        assert metrics, f"{name}: no metric in its expression"
        unknown = {m for m in metrics if not m.startswith("process_")} - documented(root)
        assert not unknown, f"{name} in {ALERTS} asks for what docs/metrics.md does not have: {sorted(unknown)}"


def test_alerts_judge_jobs_and_never_replicas(alerts):
    """What is told is about the consumer: one alert for a job, however many of its replicas are concerned."""
    for name, rule in alerts.items():
        labels = [set(re.split(r", *", by)) for by in re.findall(r"\bby \(([^)]*)\)", rule["expr"])]
        assert labels, f"{name}: nothing is aggregated"
        for by in labels:
            assert {"namespace", "job"} <= by and "instance" not in by, f"{name}: by {sorted(by)}"
