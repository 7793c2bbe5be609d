"""The dashboard: that Grafana can show it, Prometheus answer it, and that no metric is left out."""

import importlib.util
import json
import re
import subprocess

import pytest

DASHBOARD = "grafana/streamgate.json"
BUILD = "grafana/build.py"
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}


@pytest.fixture(scope="module")
def dashboard(root):
    return json.loads((root / DASHBOARD).read_text())


@pytest.fixture(scope="module")
def panels(dashboard):
    """Those that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(panels):
    """By a name for messages; two panels may have one title."""
    return {
        f"panel {panel['id']}, {panel['title']}, {target['refId']}": target["expr"]
        for panel in panels
        for target in panel["targets"]
    }


def names_of_metrics(expression):
    # Strings first: a label's value may look like anything.
    return set(re.findall(r"\b(?:streamgate|process)_\w+", re.sub(r'"[^"]*"', "", expression)))


def documented(root):
    """Name and type of what is in the tables of docs/metrics.md."""
    tables = re.findall(r"^\| `(streamgate_\w+)` \| (\w+) \|", (root / "docs/metrics.md").read_text(), re.M)
    assert len(tables) > 20, "the tables of docs/metrics.md are not what they were: this test finds no names"
    return dict(tables)


def test_it_is_what_the_script_builds(root, dashboard):
    spec = importlib.util.spec_from_file_location("build", root / BUILD)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert (root / DASHBOARD).read_text() == build.text(), f"change {BUILD}, then run python3 {BUILD}"


def test_every_panel_has_a_place_of_its_own(dashboard):
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel)
                assert other is panel, f"{panel['title']} lies on {other['title']}"


def test_every_panel_explains_itself(panels):
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], f"{panel['title']}: no unit"
        assert panel["description"].endswith("."), f"{panel['title']}: its description is no sentence"
        assert all(target["legendFormat"] for target in panel["targets"]), f"{panel['title']}: no legend"


def test_every_panel_keeps_to_what_is_chosen(dashboard, panels):
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
    for name, expression in expressions(panels).items():
        selectors = re.findall(r"\b(?:streamgate|process)_\w+(\{[^}]*\})?", expression)
        assert all('job=~"$job"' in s and 'instance=~"$instance"' in s for s in selectors), f"{name}: {expression}"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - {"__rate_interval", "__all"}
    assert used == variables


def test_prometheus_understands_every_query(tmp_path, dashboard, panels):
    asked = expressions(panels)
    asked |= {a["name"]: a["expr"] for a in dashboard["annotations"]["list"]}
    rules = []
    for name, expression in asked.items():
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        # So that promtool names the panel.
        rules.append({"record": re.sub(r"\W+", "_", name), "expr": expression})
    # JSON is YAML.
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_it_shows_every_metric_and_no_other(root, panels):
    kinds = documented(root)
    shown = set()
    for expression in expressions(panels).values():
        for name in names_of_metrics(expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            shown.add(base if kinds.get(base) == "histogram" else name)
    shown = {name for name in shown if not name.startswith("process_")}
    # The version is for `label_values`, which fills the variables.
    wanted = set(kinds) - {"streamgate_build_info"}
    missing, unknown = sorted(wanted - shown), sorted(shown - wanted)
    assert not missing, f"give a panel in {BUILD} to {missing}, run it, and think of an alert in prometheus/alerts.yaml"
    assert not unknown, f"{BUILD} shows what docs/metrics.md does not have: {unknown}"
