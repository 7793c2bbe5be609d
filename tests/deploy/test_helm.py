"""The chart: what it renders for every file of values in helm/ci, and what it refuses.

Nothing asks a cluster. The alerts and the dashboard are not the chart's to write: where they
are not there yet, stand-ins are rendered in their place.
"""

import base64
import functools
import json
import os
import re
import shutil

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from conftest import ROOT

CHART = ROOT / "helm"
EXAMPLES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir())
VERSIONS = [v for v in dict.fromkeys(utils.all_versions()) if int(v.split(".")[1]) >= 29]
STAND_INS = {
    "files/alerts.yaml": (
        "groups:\n  - name: test\n    rules:\n      - alert: Test\n        expr: up == 0\n"
        "        annotations: { summary: '{{ $labels.job }} is down' }\n"
    ),
    "files/dashboard.json": '{"title": "Test {{ name }}"}\n',
}
OPERATORS = "monitoring.coreos.com/v1"
# It would read the schemas, a megabyte each, for every object anew.
utils.schema_contents = functools.cache(utils.schema_contents)
# The parser in C, where PyYAML has it: a fifth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@pytest.fixture(scope="session")
def chart_dir(tmp_path_factory):
    """The chart with everything that it can have in files/."""
    copy = tmp_path_factory.mktemp("chart") / "helm"
    shutil.copytree(CHART, copy)
    for name, text in STAND_INS.items():
        if not (copy / name).exists():
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_text(text)
    return copy


@pytest.fixture(scope="session")
def chart(chart_dir):
    with helm_python.Chart.load(chart_dir) as chart:
        yield chart


def values_of(example):
    return yaml.safe_load((CHART / "ci" / f"{example}-values.yaml").read_text())


def merged(values, changes):
    for key, change in changes.items():
        inner = isinstance(change, dict) and isinstance(values.get(key), dict)
        values[key] = merged(values[key], change) if inner else change
    return values


def render(chart, example="minimal", release="orders", **changes):
    """All objects of a rendering."""
    files = chart.render(merged(values_of(example), changes), name=release, namespace="streams")
    texts = [text for name, text in files.items() if not name.endswith("NOTES.txt")]
    return [thing for text in texts for thing in yaml.load_all(text, LOADER) if thing]


def notes(chart, example):
    files = chart.render(values_of(example), name="orders", namespace="streams")
    return files["streamgate/templates/NOTES.txt"]


@pytest.fixture(scope="session", params=EXAMPLES)
def objects(request, chart):
    return render(chart, request.param)


def of_kind(objects, kind):
    return [thing for thing in objects if thing["kind"] == kind]


def named(objects, kind, end):
    """The one whose name ends so."""
    [found] = [t for t in of_kind(objects, kind) if t["metadata"]["name"].endswith(f"-{end}")]
    return found


def component(objects, name):
    """The pod of a Deployment, with its labels."""
    return named(objects, "Deployment", name)["spec"]["template"]


def pods(objects):
    """The spec of every pod, with what it is called."""
    for deployment in of_kind(objects, "Deployment"):
        yield deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]
    for pod in of_kind(objects, "Pod"):
        yield pod["metadata"]["name"], pod["spec"]


def env(pod):
    """Its variables, None for those that come from elsewhere."""
    entries = pod["spec"]["containers"][0]["env"]
    values = {entry["name"]: entry.get("value") for entry in entries}
    assert len(values) == len(entries), "one is there twice"
    return values


def seconds(text):
    assert text.endswith("s"), text
    return int(text[:-1])


# What Kubernetes says of it.


@pytest.mark.parametrize("example", EXAMPLES)
def test_lint_finds_nothing(chart_dir, example):
    report = helm_python.lint(chart_dir, values_of(example), strict=True, namespace="streams")
    # 1 is an information: a chart might have an icon.
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []


def test_the_supported_versions_are_those_that_are_said(root):
    assert f"from {VERSIONS[0][:4]} to {VERSIONS[-1][:4]}." in (CHART / "README.md").read_text()
    stated = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert stated == f">={VERSIONS[0][:4]}.0-0"


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_kubernetes_takes_every_object(objects, version):
    for thing in objects:
        if thing["apiVersion"] != OPERATORS:
            kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_takes_everything(chart, version):
    for thing in render(chart, "everything"):
        if thing["apiVersion"] != OPERATORS:
            kubernetes_validate.validate(thing, version, strict=True)


def test_kubernetes_refuses_what_it_does_not_know(chart):
    """So that its silence above means something."""
    deployment = named(render(chart), "Deployment", "api")
    deployment["spec"]["template"]["spec"]["containers"][0]["arg"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def operators_schema(root, kind):
    return json.loads((root / "tests" / "deploy" / "crds" / f"{kind}.json").read_text())


@pytest.mark.parametrize("example", ["everything", "service-monitor"])
def test_the_operator_takes_its_objects(root, chart, example):
    found = [thing for thing in render(chart, example) if thing["apiVersion"] == OPERATORS]
    assert found
    for thing in found:
        jsonschema.validate(thing, operators_schema(root, thing["kind"]))
        wrong = merged(json.loads(json.dumps(thing)), {"spec": {"wrong": 1}})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, operators_schema(root, thing["kind"]))


# Two containers, each with its own part.


def test_only_the_consumer_knows_the_stream(objects):
    consumer, api = component(objects, "consumer"), component(objects, "api")
    assert consumer["spec"]["containers"][0]["args"] == ["consumer"]
    assert api["spec"]["containers"][0]["args"] == ["api"]
    assert ":table/" in env(consumer)["STREAM_ARN"]
    for pod in consumer, api:
        assert env(pod)["TABLE_NAME"]
        assert env(pod)["AWS_REGION"] == "eu-central-1"
    for name in "CONSUMER_NAME", "TABLE_PARTITION_KEY", "TABLE_SORT_KEY", "API_TOKEN_FILE":
        assert env(consumer)[name] == env(api)[name]
    holders = [name for name, spec in pods(objects) if "arn:aws:dynamodb" in json.dumps(spec)]
    assert len(holders) == 1 and holders[0].endswith("-consumer")


def test_each_has_an_account_of_its_own_and_no_kubernetes_token(objects):
    names = [component(objects, name)["spec"]["serviceAccountName"] for name in ("consumer", "api")]
    assert len(set(names)) == 2
    created = {account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")}
    assert created in (set(names), set())
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for name, spec in pods(objects):
        assert spec["automountServiceAccountToken"] is False, name
    assert not [t for t in objects if "rbac" in t["apiVersion"]]


def test_accounts_carry_their_roles(chart):
    accounts = of_kind(render(chart, "irsa"), "ServiceAccount")
    roles = [a["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] for a in accounts]
    assert sorted(role.split("/")[1] for role in roles) == ["streamgate-api", "streamgate-consumer"]
    assert of_kind(render(chart, "existing-accounts"), "ServiceAccount") == []


def test_every_pod_keeps_the_restricted_standard(objects):
    for name, spec in pods(objects):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["runAsUser"] == 65532, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "runAsUser" not in context and "privileged" not in context, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume], name


def test_every_container_of_ours_has_bounds(objects):
    for name, spec in pods(objects):
        for container in spec["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), name
            assert resources["limits"].keys() == {"memory"}, name


def test_probes_ask_the_listener(objects):
    for name in "consumer", "api":
        container = component(objects, name)["spec"]["containers"][0]
        [port] = [p["containerPort"] for p in container["ports"] if p["name"] == "http"]
        assert env(component(objects, name))["LISTEN"].endswith(f":{port}")
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_every_variable_is_one_that_the_program_knows(root, objects):
    page = (root / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|(?: `--[^|]*\| ([^|]*)\|)?", page, re.M)
    known = {name: commands for names, commands in rows for name in re.findall(r"`(\w+)`", names)}
    # Credentials stand in a sentence of the page, not in its table.
    aws = set(re.findall(r"AWS_\w+", page))
    for name in "consumer", "api":
        for variable in env(component(objects, name)):
            assert variable in known or variable in aws, variable
            # Those of AWS belong to no command.
            assert f"`{name}`" in known.get(variable, "") or variable.startswith("AWS_"), variable


def test_defaults_are_the_programs(root, chart):
    """But for the grace, which has to be longer than the handler's time-out here."""
    page = (root / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `--[^|]*\| [^|]*\| `([^`]*)`", page, re.M)
    defaults = {**dict(rows), "LISTEN": "0.0.0.0:9090", "HANDLER": "log"}
    given = env(component(render(chart), "consumer"))
    compared = defaults.keys() & given.keys() - {"SHUTDOWN_GRACE"}
    assert len(compared) >= 14
    assert {name: given[name] for name in compared} == {name: defaults[name] for name in compared}


# An application's own api.


def test_an_applications_api_has_its_own_image_and_the_consumer_keeps_streamgates(chart):
    def images(objects):
        return {name: component(objects, name)["spec"]["containers"][0]["image"] for name in ("consumer", "api")}

    objects = render(chart, "application")
    own = {"consumer": "registry.example.com/streamgate:0.1.0", "api": "registry.example.com/orders:7.1"}
    assert images(objects) == own
    digest = "sha256:" + "0" * 64
    pinned = images(render(chart, "application", api={"image": {"digest": digest}}))
    assert pinned == {**own, "api": f"registry.example.com/orders@{digest}"}
    assert len(set(images(render(chart)).values())) == 1
    # What asks both is Streamgate's program.
    [test_pod] = of_kind(objects, "Pod")
    assert {one["image"] for one in test_pod["spec"]["containers"]} == {own["consumer"]}
    # It is the api as it was in everything else.
    spec = component(objects, "api")["spec"]
    assert spec["containers"][0]["args"] == ["api"]
    assert [volume["name"] for volume in spec["volumes"]] == ["token", "orders"]
    _, callers = reachable_from(named(objects, "NetworkPolicy", "api"), 8080)
    assert callers == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "shop"}}}


# The token.


def test_the_token_is_a_file_and_nothing_else(chart, objects):
    for name, spec in pods(objects):
        for container in spec["containers"]:
            assert "API_TOKEN" not in {entry["name"] for entry in container["env"]}, name
    for name in "consumer", "api":
        spec = component(objects, name)["spec"]
        [volume] = [volume for volume in spec["volumes"] if volume["name"] == "token"]
        [mount] = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "token"]
        [item] = volume["secret"]["items"]
        path = env(component(objects, name))["API_TOKEN_FILE"]
        assert mount["readOnly"] and path == f"{mount['mountPath']}/{item['path']}"
        # The group reads it, and others do not.
        assert volume["secret"]["defaultMode"] == 0o440
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]


def test_a_token_is_generated_only_without_a_secret(chart):
    [secret] = of_kind(render(chart), "Secret")
    token = base64.b64decode(secret["data"]["token"]).decode()
    assert re.fullmatch("[0-9A-Za-z]{48}", token)
    assert token not in json.dumps([t for t in render(chart) if t["kind"] != "Secret"])
    mounted = component(render(chart), "api")["spec"]["volumes"][0]["secret"]
    assert mounted["secretName"] == secret["metadata"]["name"]

    objects = render(chart, "existing-secret")
    assert of_kind(objects, "Secret") == []
    mounted = component(objects, "consumer")["spec"]["volumes"][0]["secret"]
    assert mounted["secretName"] == "orders-streamgate"
    assert mounted["items"] == [{"key": "api-token", "path": "token"}]


def test_pods_are_new_only_when_something_changed(chart):
    for example in "minimal", "existing-secret":
        of_one, of_other = (of_kind(render(chart, example), "Deployment") for _ in range(2))
        assert of_one == of_other
        changed = of_kind(render(chart, example, token={"revision": "x"}), "Deployment")
        for before, after in zip(of_one, changed, strict=True):
            templates = [deployment["spec"]["template"] for deployment in (before, after)]
            sums = [template["metadata"]["annotations"]["checksum/token"] for template in templates]
            assert sums[0] != sums[1]


# What finds what.


def matches(selector, labels):
    return selector.items() <= labels.items()


def test_selectors_find_their_pods_and_no_others(objects):
    templates = {name: component(objects, name) for name in ("consumer", "api")}
    labels = {name: template["metadata"]["labels"] for name, template in templates.items()}
    labels["test"] = named(objects, "Pod", "test")["metadata"]["labels"]
    selectors = [
        (thing, thing["spec"]["selector"].get("matchLabels", thing["spec"]["selector"]))
        for thing in objects
        if "selector" in thing.get("spec", {}) and thing["kind"] != "ServiceMonitor"
    ]
    for policy in of_kind(objects, "NetworkPolicy"):
        selectors.append((policy, policy["spec"]["podSelector"]["matchLabels"]))
    assert len(selectors) >= 5
    for thing, selector in selectors:
        name = thing["metadata"]["name"]
        own = "consumer" if name.endswith("-consumer") else "api"
        assert [pod for pod in labels if matches(selector, labels[pod])] == [own], name
        # Labels that users add are not part of it: a selector cannot be changed later.
        assert all(label.startswith("app.kubernetes.io/") for label in selector), name


def test_services_lead_to_ports_that_listen(objects):
    private, public = named(objects, "Service", "private"), named(objects, "Service", "api")
    # Readiness must not hide the private port: a stopping api takes its consumers' last positions.
    assert private["spec"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in public["spec"]
    # The consumer chooses among the pods, and has more than one to choose from.
    assert private["spec"]["clusterIP"] == "None"
    assert all("clusterIP" not in s["spec"] for s in of_kind(objects, "Service") if s is not private)
    assert [port["port"] for port in public["spec"]["ports"]] == [8080]
    for service in of_kind(objects, "Service"):
        assert service["spec"]["type"] == "ClusterIP"
        name = "consumer" if service["metadata"]["name"].endswith("-consumer") else "api"
        ports = component(objects, name)["spec"]["containers"][0]["ports"]
        numbers = {port["name"]: port["containerPort"] for port in ports}
        for port in service["spec"]["ports"]:
            assert numbers[port["targetPort"]] == port["port"]
    scheme, url = env(component(objects, "consumer"))["API_URL"].split("://")
    assert scheme == ("https" if "TLS_CERT_FILE" in env(component(objects, "api")) else "http")
    assert url == f"{private['metadata']['name']}:{private['spec']['ports'][0]['port']}"
    address = env(component(objects, "api"))["PRIVATE_LISTEN"]
    assert address.endswith(":8081") and private["spec"]["ports"][0]["port"] == 8081


def test_monitors_find_each_component_once(chart):
    objects = render(chart, "service-monitor")
    for monitor in of_kind(objects, "ServiceMonitor"):
        [endpoint] = monitor["spec"]["endpoints"]
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [
            service["metadata"]["name"]
            for service in of_kind(objects, "Service")
            if matches(selector, service["metadata"]["labels"])
            and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        ]
        assert found == [monitor["metadata"]["name"]]
        assert endpoint == {"port": "http", "path": "/metrics", "interval": "30s"}
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert len(of_kind(objects, "ServiceMonitor")) == 2
    assert len(of_kind(render(chart, "everything"), "PodMonitor")) == 2
    assert not [thing for thing in render(chart) if thing["apiVersion"] == OPERATORS]


def test_names_fit(chart):
    for thing in render(chart, release="r" * 53):
        assert len(thing["metadata"]["name"]) <= 63
        for value in thing["metadata"]["labels"].values():
            assert len(value) <= 63


def test_the_test_pod_asks_both_services(chart):
    [pod] = of_kind(render(chart), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["enableServiceLinks"] is True and pod["spec"]["restartPolicy"] == "Never"
    asked = {c["name"]: (c["args"], c["env"][0]["value"]) for c in pod["spec"]["containers"]}
    assert asked == {
        "api": (["health"], "$(ORDERS_STREAMGATE_API_SERVICE_HOST):8080"),
        "consumer": (["health"], "$(ORDERS_STREAMGATE_CONSUMER_SERVICE_HOST):9090"),
    }
    [pod] = of_kind(render(chart, "ipv6"), "Pod")
    address = pod["spec"]["containers"][0]["env"][0]["value"]
    assert address == "[$(ORDERS_STREAMGATE_API_SERVICE_HOST)]:8080"
    assert of_kind(render(chart, test={"enabled": False}), "Pod") == []


def test_ipv6_listens_on_ipv6(chart):
    objects = render(chart, "ipv6")
    assert env(component(objects, "consumer"))["LISTEN"] == "[::]:9090"
    assert env(component(objects, "api"))["PRIVATE_LISTEN"] == "[::]:8081"


# Stopping, and more than one.


def test_kubernetes_waits_longer_than_the_program(objects):
    graces = {}
    for name in "consumer", "api":
        pod = component(objects, name)
        graces[name] = seconds(env(pod)["SHUTDOWN_GRACE"])
        assert pod["spec"]["terminationGracePeriodSeconds"] == graces[name] + 10
        assert 1 <= graces[name] <= 3600
    timeout = env(component(objects, "consumer"))["HANDLER_TIMEOUT"]
    assert graces["consumer"] >= seconds(timeout)
    # The api stays for its consumers as long.
    assert graces["api"] >= graces["consumer"]


@pytest.mark.parametrize("consumers", [0, 1, 2])
@pytest.mark.parametrize("apis", [1, 2])
def test_a_budget_needs_more_than_one(chart, consumers, apis):
    objects = render(chart, consumer={"replicas": consumers}, api={"replicas": apis})
    budgets = {b["metadata"]["name"] for b in of_kind(objects, "PodDisruptionBudget")}
    counts = {"orders-streamgate-consumer": consumers, "orders-streamgate-api": apis}
    assert budgets == {name for name, count in counts.items() if count > 1}
    for name, count in counts.items():
        assert named(objects, "Deployment", name.split("-")[-1])["spec"]["replicas"] == count
    off = {"podDisruptionBudget": {"enabled": False}}
    without = render(chart, consumer=off, api=off)
    assert of_kind(without, "PodDisruptionBudget") == []


def test_the_new_pod_comes_before_the_old_one_goes(objects):
    for deployment in of_kind(objects, "Deployment"):
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": "25%", "maxUnavailable": 0}


def test_sidecars_end_last(chart):
    [sidecar] = component(render(chart, "sidecar"), "consumer")["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always" and sidecar["name"] == "handler"
    assert "initContainers" not in component(render(chart, "sidecar"), "api")["spec"]


def test_pods_spread_unless_told_otherwise(chart):
    spread = component(render(chart), "api")["spec"]["topologySpreadConstraints"]
    assert [c["whenUnsatisfiable"] for c in spread] == ["ScheduleAnyway"] * 2
    labels = component(render(chart), "api")["metadata"]["labels"]
    assert all(matches(c["labelSelector"]["matchLabels"], labels) for c in spread)
    [own] = component(render(chart, "scaled"), "consumer")["spec"]["topologySpreadConstraints"]
    assert own["whenUnsatisfiable"] == "DoNotSchedule"


# TLS between the two.


def test_the_key_is_the_apis_alone(chart):
    objects = render(chart, tls={"existingSecret": "private"})
    api, consumer = component(objects, "api"), component(objects, "consumer")

    def files(pod):
        [tls] = [v["secret"] for v in pod["spec"]["volumes"] if v["name"] == "tls"]
        assert tls["secretName"] == "private"
        [mount] = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "tls"]
        return {f"{mount['mountPath']}/{item['path']}" for item in tls["items"]}

    assert files(api) == {env(api)["TLS_CERT_FILE"], env(api)["TLS_KEY_FILE"]}
    assert files(consumer) == {env(consumer)["API_CA_FILE"]}
    assert env(consumer)["API_URL"].startswith("https://orders-streamgate-private:")
    trusted = component(render(chart, tls={"existingSecret": "private", "hasCa": False}), "consumer")
    assert "API_CA_FILE" not in env(trusted)
    assert [v["name"] for v in trusted["spec"]["volumes"]] == ["token"]


# Who may reach whom.


def port_numbers(rule):
    return {port["port"] for port in rule["ports"]}


def reachable_from(policy, number):
    """The peers that may reach a port; None for everybody."""
    peers = []
    for rule in policy["spec"]["ingress"]:
        if number in port_numbers(rule):
            if "from" not in rule:
                return None
            peers += rule["from"]
    return peers


def test_the_private_port_is_the_consumers_alone(objects):
    policies = of_kind(objects, "NetworkPolicy")
    assert len(policies) in (0, 2)
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"]["ingress"]:
            assert rule["from"] and rule["ports"], "an empty list would let everybody in"
    if policies:
        [peer] = reachable_from(named(objects, "NetworkPolicy", "api"), 8081)
        consumer = component(objects, "consumer")["metadata"]["labels"]
        assert peer.keys() == {"podSelector"}
        assert matches(peer["podSelector"]["matchLabels"], consumer)
        others = [component(objects, "api"), *of_kind(objects, "Pod")]
        for other in others:
            assert not matches(peer["podSelector"]["matchLabels"], other["metadata"]["labels"])


def test_metrics_are_for_the_namespaces_that_are_named(chart):
    objects, everything = render(chart), render(chart, "everything")
    test_pod = named(objects, "Pod", "test")["metadata"]["labels"]
    for name, port in ("consumer", 9090), ("api", 8080):
        [tester] = reachable_from(named(objects, "NetworkPolicy", name), port)
        assert matches(tester["podSelector"]["matchLabels"], test_pod)
        _, prometheus, *others = reachable_from(named(everything, "NetworkPolicy", name), port)
        [expression] = prometheus["namespaceSelector"]["matchExpressions"]
        assert expression["key"] == "kubernetes.io/metadata.name"
        assert expression["operator"] == "In"
        assert expression["values"] == ["monitoring", "observability"]
        own = values_of("everything")["networkPolicy"]["apiFrom"]
        assert others == (own if name == "api" else [])


def leads_to(policy):
    """Where a pod may go: port to peers, None for anywhere."""
    rules = policy["spec"]["egress"]
    found = [(number, rule.get("to")) for rule in rules for number in port_numbers(rule)]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_egress_is_what_is_needed(chart):
    objects = render(chart, "irsa")
    consumer = leads_to(named(objects, "NetworkPolicy", "consumer"))
    api = leads_to(named(objects, "NetworkPolicy", "api"))
    agent = [{"ipBlock": {"cidr": "169.254.170.23/32"}}, {"ipBlock": {"cidr": "fd00:ec2::23/128"}}]
    assert api == {53: None, 443: None, 80: agent}
    [to_api] = consumer.pop(8081)
    labels = component(objects, "api")["metadata"]["labels"]
    assert matches(to_api["podSelector"]["matchLabels"], labels)
    handler = values_of("irsa")["networkPolicy"]["handler"]
    assert consumer == {**api, handler["port"]: handler["to"]}

    narrow = leads_to(named(render(chart, "network-policies-narrow"), "NetworkPolicy", "api"))
    assert narrow[443] == [{"ipBlock": {"cidr": c}} for c in ("10.0.16.0/20", "10.0.32.0/20")]
    emulator = render(chart, "emulator")
    assert leads_to(named(emulator, "NetworkPolicy", "consumer"))[8001] is None
    assert leads_to(named(emulator, "NetworkPolicy", "api"))[8000] is None
    assert of_kind(render(chart, "network-policies-off"), "NetworkPolicy") == []


@pytest.mark.parametrize(
    "handler",
    [
        "log",
        "discard",
        "https://handler.example.com/x",
        "https://handler:443/",
        "http://127.0.0.1:3000/",
        "http://[::1]:3000/",
        "http://localhost/",
    ],
)
def test_some_handlers_need_no_rule(chart, handler):
    policy = named(render(chart, consumer={"handler": handler}), "NetworkPolicy", "consumer")
    assert leads_to(policy).keys() == {53, 443, 80, 8081}


# Alerts, the dashboard, and what is told after an install.


def test_alerts_and_dashboard_are_the_files(chart, chart_dir):
    objects = render(chart, "everything")
    [rule] = of_kind(objects, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((chart_dir / "files" / "alerts.yaml").read_text())
    [dashboard] = of_kind(objects, "ConfigMap")
    [text] = dashboard["data"].values()
    assert json.loads(text) == json.loads((chart_dir / "files" / "dashboard.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert of_kind(render(chart), "ConfigMap") == of_kind(render(chart), "PrometheusRule") == []


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"prometheusRule": {"enabled": True}}, "alerts.yaml"),
        ({"dashboard": {"enabled": True}}, "dashboard.json"),
    ],
)
def test_a_file_that_is_not_there_is_told(chart_dir, tmp_path, changes, file):
    shutil.copytree(chart_dir, tmp_path / "helm")
    (tmp_path / "helm" / "files" / file).unlink()
    with helm_python.Chart.load(tmp_path / "helm") as chart:
        assert_refused(chart, changes, f"this chart has no files/{file}")


def test_notes_tell_what_is_next_and_what_is_not_set(chart):
    text = notes(chart, "minimal")
    for part in [
        "exec deployment/orders-streamgate-consumer -c consumer -- /streamgate status",
        "port-forward deployment/orders-streamgate-consumer 9090",
        "consumer has no role by annotation",
        "--service-account orders-streamgate-api",
        "records are written to the log",
        "The token was generated",
    ]:
        assert part in text
    everything = notes(chart, "everything")
    for part in "no role", "records are", "generated", "networkPolicy":
        assert part not in everything
    assert "networkPolicy.enabled is false" in notes(chart, "network-policies-off")


# What is refused.


def assert_refused(chart, changes, *sentences):
    with pytest.raises(helm_python.HelmError) as refused:
        render(chart, **changes)
    for sentence in sentences:
        assert sentence in str(refused.value)


def of_consumer(**changes):
    return {"consumer": changes}


def of_api(**changes):
    return {"api": changes}


TABLES_ARN = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders"
POD_MONITOR = {"podMonitor": {"enabled": True}}
SERVICE_MONITOR = {"serviceMonitor": {"enabled": True}}
ONE_ACCOUNT = {name: {"serviceAccount": {"name": "one"}} for name in ("consumer", "api")}
NARROW_AWS = {"networkPolicy": {"awsCidrs": ["10.0.0.0/8"]}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": {"repository": ""}}, "image.repository is not set."),
        ({"tableName": ""}, "tableName is not set."),
        ({"region": ""}, "region is not set."),
        (of_consumer(streamArn=""), "consumer.streamArn is not set."),
        ({"region": "us-east-1"}, "region is us-east-1, but consumer.streamArn is in eu-central-1"),
        (
            {"shutdownGraceSeconds": 59},
            "consumer.handlerTimeoutSeconds is 60, longer than shutdownGraceSeconds, 59",
        ),
        (of_consumer(handlerTimeoutSeconds=71), "Raise shutdownGraceSeconds."),
        (of_consumer(startingPosition="AT_TIMESTAMP"), "go together"),
        (of_consumer(startingPositionTimestamp="2026-01-02T03:04:05Z"), "go together"),
        (of_consumer(env={"TABLE_NAME": "x"}), "consumer.env has TABLE_NAME, which the chart sets"),
        (of_consumer(env={"STARTING_POSITION_TIMESTAMP": "1"}), "which the chart sets."),
        (of_api(extraEnv=[{"name": "LISTEN"}]), "api.extraEnv has LISTEN, which the chart sets."),
        (of_api(env={"API_TOKEN": "x"}), "api.env has API_TOKEN, which would show in the pod."),
        (of_consumer(extraEnv=[{"name": "API_TOKEN"}]), "consumer.extraEnv has API_TOKEN"),
        (of_api(env={"STREAM_ARN": "x"}), "api.env has STREAM_ARN, which is the consumer's alone."),
        (of_api(serviceAccount={"create": False}), "api.serviceAccount.name is not set."),
        (of_api(image={"repository": "orders"}), "Your image has versions of its own: name one."),
        (of_api(image={"tag": "1"}), "api.image has a tag or a digest, but no repository."),
        (ONE_ACCOUNT, "the same service account"),
        (POD_MONITOR | SERVICE_MONITOR, "Enable one of them."),
        (POD_MONITOR, "Put Prometheus' namespace in networkPolicy.metricsNamespaces."),
        (SERVICE_MONITOR, "Put Prometheus' namespace in networkPolicy.metricsNamespaces."),
        (
            of_consumer(handler="http://handler/"),
            "consumer.handler is http://handler/, but no network policy lets the consumer reach it",
        ),
        (of_consumer(handler="https://handler:8443/"), "Set networkPolicy.handler.port"),
        (of_consumer(handler="https://h/") | NARROW_AWS, "Set networkPolicy.handler.port"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(chart, changes, sentence):
    assert_refused(chart, changes, sentence)


def test_every_fault_is_told_at_once(chart):
    with pytest.raises(helm_python.HelmError) as refused:
        chart.render({}, name="orders")
    for name in "image.repository", "tableName", "region", "consumer.streamArn":
        assert f"\n{name} is not set." in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        (of_consumer(streamArn=TABLES_ARN), "/consumer/streamArn"),
        (of_consumer(streamArn="orders"), "/consumer/streamArn"),
        ({"consumerName": "a#b"}, "/consumerName"),
        ({"consumerName": ""}, "/consumerName"),
        ({"tableName": "no spaces"}, "/tableName"),
        (of_consumer(batchSize=10001), "/consumer/batchSize"),
        (of_consumer(batchSize="100"), "/consumer/batchSize"),
        (of_consumer(maximumBatchingWindowInSeconds=301), "/maximumBatchingWindowInSeconds"),
        (of_consumer(handlerTimeoutSeconds=901), "/consumer/handlerTimeoutSeconds"),
        (of_consumer(handler="ftp://x"), "/consumer/handler"),
        (of_consumer(pollIntervalMax="5"), "/consumer/pollIntervalMax"),
        (of_consumer(maxBufferedBytes="64MB"), "/consumer/maxBufferedBytes"),
        (of_consumer(startingPosition="EARLIEST"), "/consumer/startingPosition"),
        (of_consumer(batchsize=1), "/consumer"),
        ({"shutdownGraceSeconds": 3591}, "/shutdownGraceSeconds"),
        ({"image": {"digest": "abc"}}, "/image/digest"),
        ({"api": {"handler": "log"}}, "/api"),
        ({"networkPolicy": {"handler": {"host": "x"}}}, "/networkPolicy/handler"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_the_schema_refuses_and_says_where(chart, changes, where):
    assert_refused(chart, changes, "values don't meet the specifications of the schema", where)


# The values, told in three places.


def leaves(schema, path=()):
    """Every value that a user may set, with its description."""
    if "properties" in schema and schema.get("additionalProperties") is False:
        for key, inner in schema["properties"].items():
            yield from leaves(inner, (*path, key))
    else:
        yield ".".join(path), schema["description"]


def described(text):
    """The comment above each value of values.yaml, by path."""
    found, path, comment = {}, [], []
    for line in text.splitlines():
        key = re.match(r"( *)(\w+):", line)
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        if key:
            path = [*path[: len(key[1]) // 2], key[2]]
            found[".".join(path)] = " ".join(comment)
        comment = []
    return found


def ours(schema):
    """Every object of ours in the schema."""
    if "properties" in schema:
        yield schema
        for inner in schema["properties"].values():
            yield from ours(inner)


def test_values_their_comments_and_the_schema_are_in_step():
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()
    values, comments = yaml.safe_load(text), described(text)
    told = dict(leaves(schema))
    assert told.pop("global")
    for path, description in told.items():
        value = values
        for key in path.split("."):
            value = value[key]
        assert comments[path] == description, path
    for schema_of in ours(schema):
        assert schema_of["additionalProperties"] is False
    # The other way round the schema itself refuses what it does not know.
    jsonschema.validate(values, schema)


def test_the_commands_that_the_readme_shows(chart):
    page = (CHART / "README.md").read_text()
    commands = re.findall(r"^helm (?:install|upgrade)(?:.*\\\n)*.*$", page, re.M)
    assert len(commands) == 4
    values = {}
    # Each upgrade reuses the values before it.
    for command in commands:
        for setting in re.findall(r"--set (\S+)", command):
            merged(values, helm_python.parse_set_string(setting))
        assert chart.render(values, name="orders", namespace="streams")
    assert values["token"]["revision"] and values["consumer"]["replicas"] == 2


def test_the_readme_has_every_value():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, description in leaves(schema):
        if path != "global":
            value = values
            for key in path.split("."):
                value = value[key]
            rows.append(f"| `{path}` | `{json.dumps(value)}` | {description} |")
    page = (CHART / "README.md").read_text()
    begin, end = "<!-- generated: values -->\n", "<!-- end -->"
    before, rest = page.split(begin)
    expected = before + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1]
    if os.environ.get("STREAMGATE_BLESS"):
        (CHART / "README.md").write_text(expected)
        page = expected
    assert page == expected, "STREAMGATE_BLESS=1 writes helm/README.md anew"
