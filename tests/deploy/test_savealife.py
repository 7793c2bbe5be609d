"""The example's deployments: compose, ECS, Kubernetes. That each is what its platform takes, and that
all say the same: a role per container, an environment per container, one table, one filter.
"""

import json
import re
from pathlib import Path

import helm_python
import kubernetes_validate
import pytest
import yaml
from cfnlint import decode
from cfnlint.api import lint_file

from conftest import ROOT
from test_ecs import Stack
from test_helm import CHART, LOADER, VERSIONS, component, env, leads_to, matches, named, of_kind, reachable_from

HERE = ROOT / "examples" / "savealife"
FILTER = {
    "eventName": ["INSERT"],
    "dynamodb": {"NewImage": {"PK": {"S": [{"prefix": "DONATION#"}]}}},
}
PUBLIC = {"/donor", "/donors", "/donation", "/donations"}
SECRETS = {"API_TOKEN", "SAVEALIFE_TOKEN", "SMTP_URL"}


def the_filter(text):
    """What a FILTER_CRITERIA says; it has one pattern."""
    [pattern] = json.loads(text)["Filters"]
    return json.loads(pattern["Pattern"])


def assert_each_knows_what_it_needs(consumer, api, handler):
    """The environments by container: names to values, None where the value comes from a secret."""
    tables = {one["TABLE_NAME"] for one in (consumer, api, handler)}
    assert len(tables) == 1 and tables != {None}
    assert ["STREAM_ARN" in one for one in (consumer, api, handler)] == [True, False, False]
    assert the_filter(consumer["FILTER_CRITERIA"]) == FILTER
    assert consumer["FUNCTION_RESPONSE_TYPES"] == "ReportBatchItemFailures"
    # A donation that always fails must not hold up all that come after it, and is not lost.
    assert 0 < int(consumer["MAXIMUM_RETRY_ATTEMPTS"]) <= 10_000 and consumer["ON_FAILURE"] == "api"
    assert consumer["HANDLER"].endswith(":3000/") and handler["LISTEN"] == "0.0.0.0:3000"
    assert handler["SAVEALIFE_API_URL"].endswith(":8080")
    token = {"SAVEALIFE_TOKEN", "SAVEALIFE_TOKEN_FILE"}
    assert not token & set(consumer) and token & set(api) and token & set(handler)
    assert not [name for name in handler if name.startswith(("AWS_", "API_"))]
    assert "SMTP_URL" in handler and "@" in handler["MAIL_FROM"].replace("MailFrom", "@")
    for one in consumer, api, handler:
        assert not [name for name in one if name.startswith("SMTP") and one is not handler]


# The policies


@pytest.fixture(scope="module")
def policies():
    return {
        name: json.loads((HERE / "policies" / f"{name}.json").read_text())["Statement"]
        for name in ("api", "consumer")
    }


def test_the_api_has_streamgates_statements_and_its_own(root, policies):
    streamgates = json.loads((root / "task-policies" / "api.json").read_text())["Statement"]
    own = [statement for statement in policies["api"] if statement not in streamgates]
    assert [s for s in policies["api"] if s in streamgates] == streamgates
    assert [s["Sid"] for s in own] == ["KeepItems", "NoteMails", "FindDonorsOfCity", "ListItems"]
    for statement in own:
        keys = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys")
        # A scan has none to be limited to.
        assert keys or statement["Action"] == ["dynamodb:Scan"]
        assert not any(key.startswith(("streamgate", "*")) for key in keys or [])


def test_the_consumers_is_streamgates_and_names_neither_table_nor_index(root, policies):
    text = (root / "task-policies" / "consumer.json").read_text().replace("STREAM_TABLE", "TABLE_NAME")
    assert policies["consumer"] == json.loads(text)["Statement"]
    for statement in policies["consumer"]:
        assert re.search(r":table/[^/]+/stream/[^/*]+$|:log-group:", statement["Resource"])


# ECS


@pytest.fixture(scope="module")
def template():
    read, problems = decode.decode(str(HERE / "ecs.yaml"))
    assert problems == []
    return json.loads(json.dumps(read))


# The template's defaults that are handed on.
LIMITS = {"MaximumRetryAttempts": "240", "MaximumRecordAgeInSeconds": "-1", "OnFailure": "api"}


def test_what_is_given_up_is_said_to_streamgates_template(stack, nested):
    given = stack.properties("Streamgate")["Parameters"]
    assert {name: given[name] for name in LIMITS} == LIMITS
    own = Savealife(stack.template, **{**OWN, "MaximumRetryAttempts": "7", "OnFailure": "none"})
    given = own.properties("Streamgate")["Parameters"]
    assert (given["MaximumRetryAttempts"], given["OnFailure"]) == ("7", "none")
    # What the nested template would refuse is refused before anything is created.
    for name in LIMITS:
        outer, inner = (one.template["Parameters"][name] for one in (stack, nested))
        for bound in ("Type", "AllowedPattern", "MinValue", "MaxValue"):
            assert outer.get(bound) == inner.get(bound), name


OWN = {
    "AWS::Region": "REGION",
    "AWS::AccountId": "ACCOUNT",
    "AWS::Partition": "aws",
    "AWS::StackName": "savealife",
    "Table.Arn": "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE_NAME",
    "Table.StreamArn": "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE_NAME/stream/STREAM_LABEL",
    "Table": "TABLE_NAME",
    "MailFrom": "savealife@example.org",
}


class Savealife(Stack):
    """The template, whose lists stand for themselves."""

    def call(self, function, argument):
        if function == "Join":
            return self.value(argument[1]["Ref"])
        if function == "Sub" and isinstance(argument, list):
            return argument[0]
        return super().call(function, argument)


@pytest.fixture(scope="module")
def stack(template):
    return Savealife(template, **OWN)


@pytest.fixture(scope="module")
def nested(root, stack):
    """Streamgate's template with what this one gives it."""
    read, _ = decode.decode(str(root / "ecs" / "cloudformation.yaml"))
    given = stack.properties("Streamgate")["Parameters"]
    return Stack(json.loads(json.dumps(read)), **OWN, **given)


def lint(path):
    # That the nested template's place is a path is what `package` is for.
    return [str(match) for match in lint_file(path) if match.rule.id != "W3002"]


def test_cfn_lint_finds_nothing_also_between_the_two_templates(root, tmp_path):
    assert lint(HERE / "ecs.yaml") == []
    text = (HERE / "ecs.yaml").read_text()
    text = text.replace("../../ecs/cloudformation.yaml", str(root / "ecs" / "cloudformation.yaml"))
    for right, wrong in [("ApiImageUri:", "ApisImageUri:"), ("!GetAtt Table.Arn", "!GetAtt Table.Arm")]:
        assert right in text
        (tmp_path / "ecs.yaml").write_text(text.replace(right, wrong))
        assert lint(tmp_path / "ecs.yaml") != [], wrong


def test_streamgates_template_takes_what_it_is_given(stack, nested):
    given = stack.properties("Streamgate")["Parameters"]
    assert set(given) <= set(nested.template["Parameters"])
    assert nested.refusals() == []
    taken = re.findall(r"Streamgate\.Outputs\.(\w+)", (HERE / "ecs.yaml").read_text())
    assert taken and set(taken) <= set(nested.template["Outputs"])
    for name in ("Handler", "FilterCriteria", "ApiSecretName", "FunctionResponseTypes"):
        parameter = nested.template["Parameters"][name]
        allowed = parameter.get("AllowedPattern") or "|".join(parameter["AllowedValues"])
        assert re.fullmatch(allowed, given[name]), name
    assert stack.template["Resources"]["Streamgate"]["Properties"]["TemplateURL"] == "../../ecs/cloudformation.yaml"


def test_the_table_is_the_originals(stack):
    table = stack.properties("Table")
    key = lambda name, kind: {"AttributeName": name, "KeyType": kind}
    assert table["KeySchema"] == [key("PK", "HASH"), key("SK", "RANGE")]
    [index] = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "SK-PK-index"
    assert index["KeySchema"] == [key("SK", "HASH"), key("PK", "RANGE")]
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_on_ecs_each_container_has_its_own_environment(stack, nested):
    [handler] = stack.properties("HandlerTask")["ContainerDefinitions"]
    environments = {
        "consumer": nested.container("consumer"),
        "api": nested.container("api"),
        "handler": handler,
    }
    for name, container in environments.items():
        values = {one["Name"]: one["Value"] for one in container["Environment"]}
        secrets = {one["Name"]: None for one in container["Secrets"]}
        assert set(secrets) <= SECRETS and not SECRETS & set(values)
        environments[name] = values | secrets
    assert_each_knows_what_it_needs(**environments)


def test_on_ecs_each_container_has_its_own_role(stack, nested, policies):
    own = stack.properties("ApiPolicy")["PolicyDocument"]["Statement"]
    streamgates = nested.statements("ApiTaskRole")
    # The awslogs driver writes with the execution role.
    assert streamgates + own == [s for s in policies["api"] if s["Sid"] != "WriteLogs"]
    assert nested.properties("ApiTaskRole")["ManagedPolicyArns"] == ["ApiPolicy"]
    assert nested.statements("ConsumerTaskRole") == [s for s in policies["consumer"] if s["Sid"] != "WriteLogs"]
    # The handler has none. What ECS may do for it, it cannot.
    task = stack.properties("HandlerTask")
    assert "TaskRoleArn" not in task and task["ExecutionRoleArn"] == "HandlerExecutionRole.Arn"
    statements = stack.statements("HandlerExecutionRole")
    assert not [s for s in statements if "dynamodb" in json.dumps(s)]
    [secrets] = [s for s in statements if s["Sid"] == "ReadSecrets"]
    assert secrets["Resource"] == ["SavealifeToken", "SmtpSecretArn"]


def test_on_ecs_nobody_is_reached_but_by_those_who_need_it(stack, nested):
    rules = {
        (name, rule["FromPort"], rule.get("SourceSecurityGroupId") or rule["CidrIp"])
        for name, group in stack.of_type("AWS::EC2::SecurityGroup").items()
        for rule in group.get("SecurityGroupIngress", [])
    }
    assert rules == {
        ("LoadBalancerSecurityGroup", 80, "0.0.0.0/0"),
        ("HandlerSecurityGroup", 3000, "Streamgate.Outputs.ConsumerSecurityGroupId"),
    }
    [callers] = nested.of_type("AWS::EC2::SecurityGroupIngress").values()
    assert callers["SourceSecurityGroupId"] == "ApiCallersSecurityGroup.GroupId"
    members = [
        name
        for name, resource in stack.template["Resources"].items()
        if resource["Type"].endswith(("::Service", "::LoadBalancer"))
        and "ApiCallersSecurityGroup.GroupId" in json.dumps(stack.properties(name))
    ]
    assert sorted(members) == ["HandlerService", "LoadBalancer"]


def test_on_ecs_they_find_each_other(stack, nested):
    [handler] = stack.properties("HandlerTask")["ContainerDefinitions"]
    url = {one["Name"]: one["Value"] for one in handler["Environment"]}["SAVEALIFE_API_URL"]
    offered = nested.properties("ApiService")["ServiceConnectConfiguration"]["Services"][1]
    [alias] = offered["ClientAliases"]
    assert url == f"http://{alias['DnsName']}:{alias['Port']}"
    discovery = stack.properties("HandlerDiscovery")["Name"], stack.properties("Discovery")["Name"]
    assert nested.environment("consumer")["HANDLER"] == f"http://{'.'.join(discovery)}:3000/"
    assert handler["PortMappings"][0]["ContainerPort"] == 3000


def test_the_load_balancer_shows_the_public_routes_only(stack):
    [rule] = stack.of_type("AWS::ElasticLoadBalancingV2::ListenerRule").values()
    [condition] = rule["Conditions"]
    shown = condition["PathPatternConfig"]["Values"]
    assert {path.removesuffix("/*") for path in shown} == PUBLIC
    [default] = stack.properties("Listener")["DefaultActions"]
    assert default["FixedResponseConfig"]["StatusCode"] == "404"
    with_tls = Savealife(stack.template, **OWN, CertificateArn="arn:aws:acm:REGION:ACCOUNT:certificate/1")
    assert (with_tls.properties("Listener")["Protocol"], with_tls.properties("Listener")["Port"]) == ("HTTPS", 443)


def test_the_load_balancer_closes_silent_connections_before_the_api_does(stack):
    attributes = stack.properties("LoadBalancer")["LoadBalancerAttributes"]
    [idle] = [int(one["Value"]) for one in attributes if one["Key"] == "idle_timeout.timeout_seconds"]
    listener = (ROOT / "src" / "api" / "listener.rs").read_text()
    kept = re.search(r"HEAD_TIMEOUT: Duration = Duration::from_secs\((\d+)\)", listener)
    assert idle < int(kept[1])


def test_on_ecs_a_stop_is_longer_than_an_invocation(stack, nested):
    seconds = lambda text: int(text.removesuffix("s"))
    [handler] = stack.properties("HandlerTask")["ContainerDefinitions"]
    grace = {one["Name"]: one["Value"] for one in handler["Environment"]}["SHUTDOWN_GRACE"]
    timeout = nested.environment("consumer")["HANDLER_TIMEOUT"]
    assert 120 >= handler["StopTimeout"] > seconds(grace) > seconds(timeout)
    assert (handler["User"], handler["ReadonlyRootFilesystem"]) == ("65532", True)


# Kubernetes


@pytest.fixture(scope="module")
def objects():
    """The chart with the example's values, and the example's own objects."""
    values = yaml.safe_load((HERE / "helm-values.yaml").read_text())
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="savealife", namespace="savealife")
    texts = [text for name, text in files.items() if not name.endswith("NOTES.txt")]
    texts.append((HERE / "kubernetes.yaml").read_text())
    return [thing for text in texts for thing in yaml.load_all(text, LOADER) if thing]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(objects, version):
    for thing in objects:
        kubernetes_validate.validate(thing, version, strict=True)


def test_lint_finds_nothing_in_the_values():
    values = yaml.safe_load((HERE / "helm-values.yaml").read_text())
    report = helm_python.lint(CHART, values, strict=True, namespace="savealife")
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_on_kubernetes_each_container_has_its_own_environment(objects):
    pods = {name: component(objects, name) for name in ("consumer", "api", "handler")}
    assert_each_knows_what_it_needs(**{name: env(pod) for name, pod in pods.items()})
    images = {name: pod["spec"]["containers"][0]["image"] for name, pod in pods.items()}
    assert images["api"] == images["handler"] != images["consumer"]
    args = {name: pod["spec"]["containers"][0]["args"] for name, pod in pods.items()}
    assert args == {"api": ["api"], "handler": ["handler"], "consumer": ["consumer"]}


def test_on_kubernetes_the_token_is_a_file_of_api_and_handler(objects):
    for name in "api", "handler":
        pod = component(objects, name)
        [volume] = [v["secret"] for v in pod["spec"]["volumes"] if v["name"] == "savealife"]
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        [mount] = [m for m in mounts if m["name"] == "savealife"]
        [item] = volume["items"]
        assert item["key"] == "savealife-token" and volume["defaultMode"] == 0o440
        assert env(pod)["SAVEALIFE_TOKEN_FILE"] == f"{mount['mountPath']}/{item['path']}"
    assert "savealife-token" not in json.dumps(component(objects, "consumer"))


def test_on_kubernetes_the_three_have_three_accounts_and_the_handler_no_role(objects):
    accounts = {a["metadata"]["name"]: a for a in of_kind(objects, "ServiceAccount")}
    used = [component(objects, name)["spec"]["serviceAccountName"] for name in ("consumer", "api", "handler")]
    assert sorted(used) == sorted(accounts)
    handlers = accounts[component(objects, "handler")["spec"]["serviceAccountName"]]
    assert "annotations" not in handlers["metadata"]
    assert not [a for a in accounts.values() if a["automountServiceAccountToken"]]


def test_the_handlers_pod_keeps_the_restricted_standard(objects):
    spec = component(objects, "handler")["spec"]
    of_api = component(objects, "api")["spec"]
    assert spec["securityContext"] == of_api["securityContext"]
    [container] = spec["containers"]
    assert container["securityContext"] == of_api["containers"][0]["securityContext"]
    grace = int(env(component(objects, "handler"))["SHUTDOWN_GRACE"].removesuffix("s"))
    timeout = int(env(component(objects, "consumer"))["HANDLER_TIMEOUT"].removesuffix("s"))
    assert spec["terminationGracePeriodSeconds"] > grace > timeout


def test_on_kubernetes_nobody_is_reached_but_by_those_who_need_it(objects):
    labels = {name: component(objects, name)["metadata"]["labels"] for name in ("consumer", "api", "handler")}
    policies = {name: named(objects, "NetworkPolicy", name) for name in labels}

    def who(peers):
        """The containers that some of these peers are."""
        pods = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
        return {name for name in labels if any(matches(pod, labels[name]) for pod in pods)}

    for name, policy in policies.items():
        assert matches(policy["spec"]["podSelector"]["matchLabels"], labels[name])
    assert who(reachable_from(policies["handler"], 3000)) == {"consumer"}
    assert who(reachable_from(policies["api"], 8081)) == {"consumer"}
    assert who(reachable_from(policies["api"], 8080)) == {"handler"}
    assert who(leads_to(policies["consumer"])[3000]) == {"handler"}
    out = leads_to(policies["handler"])
    assert set(out) == {53, 8080, 465, 587} and who(out[8080]) == {"api"}


def test_on_kubernetes_they_find_each_other(objects):
    services = {s["metadata"]["name"]: s for s in of_kind(objects, "Service")}
    for container, variable in ("consumer", "HANDLER"), ("handler", "SAVEALIFE_API_URL"):
        host, port = re.fullmatch(r"http://([^:]+):(\d+)/?", env(component(objects, container))[variable]).groups()
        assert int(port) in [one["port"] for one in services[host]["spec"]["ports"]]
    ports = component(objects, "handler")["spec"]["containers"][0]["ports"]
    assert ports == [{"name": "http", "containerPort": 3000}]
    assert matches(
        services["savealife-handler"]["spec"]["selector"], component(objects, "handler")["metadata"]["labels"]
    )


def test_the_ingress_shows_the_public_routes_only(objects):
    [ingress] = of_kind(objects, "Ingress")
    [rule] = ingress["spec"]["rules"]
    assert {path["path"] for path in rule["http"]["paths"]} == PUBLIC
    backends = {json.dumps(path["backend"], sort_keys=True) for path in rule["http"]["paths"]}
    assert len(backends) == 1 and named(objects, "Service", "api")["metadata"]["name"] in backends.pop()


# compose


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((HERE / "compose.yaml").read_text())["services"]


def test_in_compose_each_container_has_its_own_environment(compose):
    environments = {name: compose[name]["environment"] for name in ("consumer", "api", "handler")}
    assert_each_knows_what_it_needs(**environments)
    assert environments["consumer"]["STREAM_ARN"].split("/")[1] == environments["api"]["TABLE_NAME"]
    label = environments["consumer"]["STREAM_ARN"].split("/")[-1]
    command = compose["dynamodb"]["command"]
    assert f"--stream-label={label}" in command and "--index=SK-PK-index=SK,PK" in command


def test_in_compose_all_are_locked_up_and_listen_on_this_machine_only(compose):
    for name, service in compose.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    images = {name: service["image"] for name, service in compose.items()}
    assert images["api"] == images["handler"] and images["consumer"] == images["dynamodb"]
    assert re.fullmatch(r"axllent/mailpit:v\d+\.\d+\.\d+", images["mail"])
    # Each image is built by one of those that have it.
    assert [name for name in compose if "build" in compose[name]] == ["dynamodb", "api"]


def test_in_compose_they_find_each_other(compose):
    def names(*variables):
        return [urls[1] for v in variables if (urls := re.match(r"\w+://([^:/]+)", v))]

    consumer, handler = compose["consumer"]["environment"], compose["handler"]["environment"]
    found = names(consumer["API_URL"], consumer["HANDLER"], handler["SAVEALIFE_API_URL"], handler["SMTP_URL"])
    assert found == ["api", "handler", "api", "mail"]


# All of them


def test_a_handlers_variables_are_those_that_it_reads(stack, objects, compose):
    [task] = stack.properties("HandlerTask")["ContainerDefinitions"]
    on_ecs = [one["Name"] for one in task["Environment"] + task["Secrets"]]
    everywhere = set(on_ecs) | set(env(component(objects, "handler"))) | set(compose["handler"]["environment"])
    sources = {
        "rust": (HERE / "settings.rs").read_text() + (HERE / "handler.rs").read_text(),
        "python": "".join(path.read_text() for path in (HERE / "python").glob("*.py")),
    }
    # What all containers have, and what is of a server's own.
    for name in everywhere - {"TABLE_NAME"}:
        assert f'"{name}"' in sources["rust"], name
        assert f'"{name}"' in sources["python"] or name in ("LISTEN", "SHUTDOWN_GRACE"), name


def readme():
    return (HERE / "README.md").read_text()


def test_the_readme_gives_ecs_what_it_asks_for(template):
    command = re.search(r"^aws cloudformation deploy(?:.*\\\n)*.*$", readme(), re.M)[0]
    given = set(re.findall(r"(\w+)=", command.split("--parameter-overrides")[1]))
    needed = {name for name, one in template["Parameters"].items() if "Default" not in one}
    assert given == needed


def test_the_readme_makes_the_secret_that_kubernetes_mounts(objects):
    command = re.search(r"^kubectl .*create secret(?:.*\\\n)*.*$", readme(), re.M)[0]
    made = set(re.findall(r"--from-literal=([\w-]+)=", command))
    text = json.dumps(objects)
    used = set(re.findall(r'"key": "([\w-]+)"', text.replace("kubernetes.io/metadata.name", "")))
    assert made == used & made and {"token", "savealife-token", "smtp-url"} == made
    assert "helm -n savealife install savealife ./helm -f examples/savealife/helm-values.yaml" in readme()
    for path in re.findall(r"-f (examples/\S+)", readme()):
        assert (ROOT / path).exists(), path


def test_the_readmes_links_lead_somewhere():
    for page in HERE / "README.md", HERE / "policies" / "README.md":
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


def test_there_is_one_filter_wherever_it_stands(root):
    pattern = re.compile(r"""\{"Filters":\[\{"Pattern":"(?:\\.|[^"\\])*"\}\]\}""")
    found = {
        path.relative_to(root).as_posix(): the_filter(text)
        for path in sorted(Path(HERE).rglob("*"))
        if path.suffix in (".yaml", ".md", ".rs")
        for text in pattern.findall(path.read_text())
    }
    assert {"examples/savealife/ecs.yaml", "examples/savealife/compose.yaml"} <= set(found)
    assert all(criteria == FILTER for criteria in found.values()), found
