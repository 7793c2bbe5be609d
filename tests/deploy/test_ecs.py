"""The deployment on ECS: the template, the raw task definitions and the trust policies.

The template is read as CloudFormation reads it, with parameters filled in, and compared with
the other files; linters and the AWS SDK's own model judge each. Nothing is sent to AWS.
"""

import json
import re
import subprocess

import botocore.session
import parliament
import pytest
from botocore.validate import ParamValidator
from cfnlint import decode
from cfnlint.api import lint

ROLES = {"consumer": "ConsumerTaskRole", "api": "ApiTaskRole"}
TASKS = {"consumer": "ConsumerTask", "api": "ApiTask"}
TRUST = ["trust-ecs.json", "trust-irsa.json", "trust-pod-identity.json"]

STREAM = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-02T03:04:05.678"
# What the files of placeholders say, in the template's words.
PLACEHOLDERS = {
    "AWS::Region": "REGION",
    "AWS::AccountId": "ACCOUNT",
    "AWS::Partition": "aws",
    "AWS::StackName": "streamgate",
    "StreamArn": "arn:aws:dynamodb:REGION:ACCOUNT:table/STREAM_TABLE/stream/STREAM_LABEL",
    "TableName": "TABLE_NAME",
    "ImageUri": "IMAGE",
    "EcrRepositoryArn": "arn:aws:ecr:REGION:ACCOUNT:repository/REPOSITORY",
    "Handler": "HANDLER_URL",
    "Token": "SECRET_ARN",
    "ConsumerLogGroup": "LOG_GROUP",
    "ApiLogGroup": "LOG_GROUP",
    "ConsumerTaskRole.Arn": "arn:aws:iam::ACCOUNT:role/streamgate-consumer",
    "ApiTaskRole.Arn": "arn:aws:iam::ACCOUNT:role/streamgate-api",
    "ExecutionRole.Arn": "arn:aws:iam::ACCOUNT:role/streamgate-execution",
}


class Stack:
    """A template with values for its parameters, pseudo parameters and resources.

    What has no value stands for itself: `Table.Arn`.
    """

    NOTHING = object()

    def __init__(self, template, **values):
        self.template = template
        defaults = {
            name: str(parameter["Default"])
            for name, parameter in template["Parameters"].items()
            if "Default" in parameter
        }
        self.values = {**defaults, "AWS::NoValue": self.NOTHING, **values}

    def value(self, name):
        return self.values.get(name, name)

    def holds(self, condition):
        return self.resolve(self.template["Conditions"][condition])

    def resolve(self, node):
        if isinstance(node, list):
            items = [self.resolve(item) for item in node]
            return [item for item in items if item is not self.NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, argument),) = node.items()
            if function == "Ref":
                return self.value(argument)
            if function == "Condition" and isinstance(argument, str):
                return self.holds(argument)
            if function.startswith("Fn::"):
                return self.call(function.removeprefix("Fn::"), argument)
        items = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in items.items() if value is not self.NOTHING}

    def call(self, function, argument):
        match function:
            case "If":
                return self.resolve(argument[1 if self.holds(argument[0]) else 2])
            case "GetAtt":
                return self.value(".".join(argument))
            case "Sub":
                return re.sub(r"\$\{(.+?)\}", lambda name: self.value(name[1]), argument)
            case "FindInMap":
                name, first, second = self.resolve(argument)
                return self.template["Mappings"][name][first][second]
            case "Select":
                index, items = self.resolve(argument)
                return items[index]
            case "Split":
                separator, joined = self.resolve(argument)
                return joined.split(separator)
            case "Equals":
                return self.resolve(argument[0]) == self.resolve(argument[1])
            case "Not":
                return not self.resolve(argument[0])
            case "And":
                return all(self.resolve(argument))
            case "Or":
                return any(self.resolve(argument))
        raise AssertionError(f"this test cannot read Fn::{function}")

    def properties(self, resource):
        return self.resolve(self.template["Resources"][resource]["Properties"])

    def of_type(self, kind):
        """The resources of a kind that this stack has, by name."""
        return {
            name: self.properties(name)
            for name, resource in self.template["Resources"].items()
            if resource["Type"] == kind
            and ("Condition" not in resource or self.holds(resource["Condition"]))
        }

    def statements(self, role):
        policies = self.properties(role)["Policies"]
        return [s for policy in policies for s in policy["PolicyDocument"]["Statement"]]

    def container(self, command):
        (container,) = self.properties(TASKS[command])["ContainerDefinitions"]
        return container

    def environment(self, command):
        return {one["Name"]: one["Value"] for one in self.container(command)["Environment"]}

    def refusals(self):
        """What the section Rules says about these parameters."""
        return [
            assertion["AssertDescription"]
            for rule in self.template["Rules"].values()
            if self.resolve(rule.get("RuleCondition", True))
            for assertion in rule["Assertions"]
            if not self.resolve(assertion["Assert"])
        ]


@pytest.fixture(scope="module")
def text(root):
    return (root / "ecs" / "cloudformation.yaml").read_text()


@pytest.fixture(scope="module")
def template(root):
    read, problems = decode.decode(str(root / "ecs" / "cloudformation.yaml"))
    assert problems == []
    return json.loads(json.dumps(read))


@pytest.fixture(scope="module")
def stack(template):
    """As the files of placeholders describe it."""
    return Stack(template, **PLACEHOLDERS)


@pytest.fixture(scope="module")
def stacks(template, stack):
    """Everything that exists already, everything created, and the table alone created."""
    handler = {"Handler": "log"}
    return [stack, Stack(template, **handler), Stack(template, StreamArn=STREAM, **handler)]


@pytest.fixture(scope="module")
def definitions(root):
    return {
        command: json.loads((root / "ecs" / f"task-definition-{command}.json").read_text())
        for command in TASKS
    }


def policy(root, *path):
    return json.loads(root.joinpath(*path).read_text())["Statement"]


def as_list(value):
    return value if isinstance(value, list) else [value]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


# The template


def test_cfn_lint_finds_nothing(text):
    assert [str(match) for match in lint(text)] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("!GetAtt Table.StreamArn", "!GetAtt Table.StreamArm"), ("LaunchType: FARGATE", "LaunchTyp: FARGATE")],
)
def test_cfn_lint_finds_what_is_wrong(text, right, wrong):
    """So that its silence above means something."""
    assert right in text
    findings = [match.rule.id for match in lint(text.replace(right, wrong))]
    assert any(finding.startswith("E") for finding in findings)


def test_cloudformation_can_read_it(text):
    """It takes no aliases, 51,200 bytes on the wire, and shows other than ASCII as `?`."""
    assert text.isascii() and len(text) <= 51_200
    assert not re.search(r"[:-] [*&]\w", text)


@pytest.mark.parametrize("command", TASKS)
def test_a_container_role_allows_what_task_policies_says(root, stack, command):
    # The awslogs driver writes with the execution role, so that statement is not needed here.
    wanted = [s for s in policy(root, "task-policies", f"{command}.json") if s["Sid"] != "WriteLogs"]
    assert wanted and stack.statements(ROLES[command]) == wanted


def test_with_a_table_of_its_own_the_roles_name_that_one(template):
    stack = Stack(template, Handler="log")
    (read,), keep = stack.statements(ROLES["consumer"]), stack.statements(ROLES["api"])
    assert read["Resource"] == "Table.StreamArn"
    assert {statement["Resource"] for statement in keep} == {"Table.Arn"}
    assert stack.environment("consumer")["STREAM_ARN"] == "Table.StreamArn"
    assert stack.environment("consumer")["TABLE_NAME"] == "Table"
    assert stack.environment("api")["TABLE_NAME"] == "Table"
    (table,) = stack.of_type("AWS::DynamoDB::Table").values()
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert {one["AttributeType"] for one in table["AttributeDefinitions"]} == {"S"}
    assert [one["AttributeName"] for one in table["KeySchema"]] == ["PK", "SK"]


def test_a_stream_that_exists_is_read_with_a_table_that_does_not(template):
    stack = Stack(template, Handler="log", StreamArn=STREAM)
    (table,) = stack.of_type("AWS::DynamoDB::Table").values()
    assert "StreamSpecification" not in table
    assert stack.environment("consumer")["STREAM_ARN"] == STREAM
    assert stack.statements(ROLES["consumer"])[0]["Resource"] == STREAM
    assert stack.environment("api")["TABLE_NAME"] == "Table"


def test_nothing_is_created_that_was_given(stack):
    assert stack.of_type("AWS::DynamoDB::Table") == {}
    given = Stack(stack.template, **PLACEHOLDERS, ClusterName="main")
    assert given.of_type("AWS::ECS::Cluster") == {}
    assert {s["Cluster"] for s in given.of_type("AWS::ECS::Service").values()} == {"main"}


def test_the_execution_role_pulls_logs_and_reads_the_token(root, stack):
    def flat(statements):
        return [
            {**s, "Resource": set(as_list(s["Resource"])), "Action": as_list(s["Action"])}
            for s in statements
        ]

    assert flat(stack.statements("ExecutionRole")) == flat(policy(root, "ecs", "execution-role.json"))
    # An image from elsewhere needs no right to ECR.
    elsewhere = Stack(stack.template, **{**PLACEHOLDERS, "EcrRepositoryArn": ""})
    assert [s["Sid"] for s in elsewhere.statements("ExecutionRole")] == ["WriteLogs", "ReadToken"]


def test_no_role_allows_more_than_it_names(stacks):
    for stack in stacks:
        for role, properties in stack.of_type("AWS::IAM::Role").items():
            assert set(properties) == {"AssumeRolePolicyDocument", "Policies"}, role
            for statement in stack.statements(role):
                actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
                assert not any("*" in action for action in actions)
                for resource in resources:
                    named = resource.removesuffix(":log-stream:*")
                    assert "*" not in named or actions == ["ecr:GetAuthorizationToken"]


def test_no_file_allows_to_create_log_groups_or_to_list_streams(root):
    files = [*(root / "ecs").glob("*.json"), *(root / "ecs").glob("*.yaml")]
    assert len(files) == 4
    for file in files + [root / "task-policies" / name for name in TRUST]:
        for action in ["CreateLogGroup", "ListStreams", "awslogs-create-group", "ssmmessages"]:
            assert action not in file.read_text(), file


def test_every_role_trusts_tasks_of_this_account_only(root, stack):
    wanted = json.loads((root / "task-policies" / "trust-ecs.json").read_text())
    roles = stack.of_type("AWS::IAM::Role")
    assert len(roles) == 3
    for role in roles.values():
        assert role["AssumeRolePolicyDocument"] == wanted


def test_only_the_consumer_reaches_the_private_port(template):
    def allowed(stack):
        """Who reaches which port of which group."""
        rules = [
            {"GroupId": f"{name}.GroupId", **rule}
            for name, group in stack.of_type("AWS::EC2::SecurityGroup").items()
            for rule in group.get("SecurityGroupIngress", [])
        ]
        rules += stack.of_type("AWS::EC2::SecurityGroupIngress").values()
        for rule in rules:
            assert rule["IpProtocol"] == "tcp" and rule["FromPort"] == rule["ToPort"]
            # A group, never a range of addresses.
            assert not [key for key in rule if key.startswith(("Cidr", "SourcePrefix"))]
        return {(r["GroupId"], r["FromPort"], r["SourceSecurityGroupId"]) for r in rules}

    private = ("ApiSecurityGroup.GroupId", 8081, "ConsumerSecurityGroup.GroupId")
    assert allowed(Stack(template)) == {private}
    assert allowed(Stack(template, ObserverSecurityGroupId="sg-0123abcd")) == {
        private,
        ("ConsumerSecurityGroup.GroupId", 9090, "sg-0123abcd"),
        ("ApiSecurityGroup.GroupId", 8080, "sg-0123abcd"),
    }


def test_the_services(stack):
    services = stack.of_type("AWS::ECS::Service")
    assert stack.template["Resources"]["ConsumerService"]["DependsOn"] == "ApiService"
    for command, service in {"consumer": services["ConsumerService"], "api": services["ApiService"]}.items():
        assert service["TaskDefinition"] == TASKS[command]
        assert service["EnableExecuteCommand"] is False
        assert service["DeploymentConfiguration"] == {
            "MinimumHealthyPercent": 100,
            "MaximumPercent": 200,
            "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
        }
        network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
        assert network["AssignPublicIp"] == "DISABLED"
        group = f"{TASKS[command].removesuffix('Task')}SecurityGroup.GroupId"
        assert network["SecurityGroups"] == [group]
    assert (services["ConsumerService"]["DesiredCount"], services["ApiService"]["DesiredCount"]) == ("2", "2")


def test_the_consumer_finds_the_api_where_service_connect_puts_it(stack):
    services = stack.of_type("AWS::ECS::Service")
    api = services["ApiService"]["ServiceConnectConfiguration"]
    consumer = services["ConsumerService"]["ServiceConnectConfiguration"]
    assert api["Enabled"] and consumer["Enabled"] and api["Namespace"] == consumer["Namespace"]
    ((offered,),) = [api["Services"]]
    ((alias,),) = [offered["ClientAliases"]]
    environment = stack.environment("consumer")
    assert environment["API_URL"] == f"http://{alias['DnsName']}:{alias['Port']}"
    ports = {port.get("Name"): port["ContainerPort"] for port in stack.container("api")["PortMappings"]}
    listens = stack.environment("api")["PRIVATE_LISTEN"]
    assert listens.endswith(f":{ports[offered['PortName']]}")


def test_the_token_is_a_secret_and_nothing_else(template, text):
    for parameters in [{}, {"ApiToken": "0123456789abcdef"}]:
        stack = Stack(template, Handler="log", **parameters)
        ((name, secret),) = stack.of_type("AWS::SecretsManager::Secret").items()
        assert ("GenerateSecretString" in secret) != ("SecretString" in secret)
        if not parameters:
            # Letters and digits only: all of them allowed in a token.
            assert secret["GenerateSecretString"] == {"PasswordLength": 64, "ExcludePunctuation": True}
        for command in TASKS:
            assert stack.container(command)["Secrets"] == [{"Name": "API_TOKEN", "ValueFrom": name}]
            assert "API_TOKEN" not in stack.environment(command)
    assert template["Parameters"]["ApiToken"]["NoEcho"] is True
    # Read in one place, and by the condition that asks whether there is one.
    assert text.count("!Ref ApiToken,") + text.count("!Ref ApiToken]") == 2


def test_stopping_fits_into_what_fargate_allows(root, template, stack):
    documented = re.search(r"^\| `SHUTDOWN_GRACE` .*?\| `(\d+s)` \|", configuration(root), re.M)[1]
    grace = {c: seconds(stack.environment(c)["SHUTDOWN_GRACE"]) for c in TASKS}
    for command in TASKS:
        assert 120 >= stack.container(command)["StopTimeout"] > grace[command] >= seconds(documented)
    timeout = template["Parameters"]["HandlerTimeout"]
    assert timeout["Default"] <= timeout["MaxValue"] <= grace["consumer"] - 5
    assert str(timeout["MaxValue"]) in timeout["ConstraintDescription"]
    assert seconds(stack.environment("consumer")["HANDLER_TIMEOUT"]) == timeout["Default"]
    # The api waits that long for consumers that are stopping too.
    assert grace["api"] >= grace["consumer"]


# What is set


def configuration(root):
    return (root / "docs" / "configuration.md").read_text()


def test_every_variable_is_one_that_the_command_knows(root, template):
    table = re.search(r"<!-- generated: settings -->(.*?)<!-- end -->", configuration(root), re.S)[1]
    known = {name: commands for name, commands in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", table, re.M)}
    assert "STREAM_ARN" in known
    everything = {"StreamsEndpoint": "https://vpce-0abc.example.com", "FilterCriteria": "{}"}
    response_types = {"FunctionResponseTypes": "ReportBatchItemFailures"}
    stack = Stack(template, **{**PLACEHOLDERS, **everything, **response_types})
    for command in TASKS:
        secrets = {secret["Name"] for secret in stack.container(command)["Secrets"]}
        for name in secrets | set(stack.environment(command)):
            if name.startswith("AWS_"):
                assert f"`{name}`" in configuration(root), name
            else:
                assert f"`{command}`" in known[name], name


def test_only_the_consumer_knows_the_stream(stacks):
    for stack in stacks:
        consumer, api = stack.environment("consumer"), stack.environment("api")
        assert "STREAM_ARN" in consumer and "STREAM_ARN" not in api
        assert consumer["TABLE_NAME"] == api["TABLE_NAME"] and consumer["TABLE_NAME"]
        assert consumer["CONSUMER_NAME"] == api["CONSUMER_NAME"]
        assert api["AWS_REGION"]
        assert consumer["METRICS_EMF"] == "true"


@pytest.mark.parametrize("command", TASKS)
def test_the_health_check_asks_the_port_that_is_listened_on(stack, command):
    container = stack.container(command)
    assert container["HealthCheck"]["Command"] == ["CMD", "/streamgate", "health"]
    port = int(stack.environment(command)["LISTEN"].rpartition(":")[2])
    assert port in [mapping["ContainerPort"] for mapping in container["PortMappings"]]


@pytest.mark.parametrize("command", TASKS)
def test_a_container_may_as_little_as_it_can(stack, command):
    container = stack.container(command)
    assert (container["User"], container["ReadonlyRootFilesystem"]) == ("65532", True)
    assert container["LinuxParameters"] == {"Capabilities": {"Drop": ["ALL"]}}


def test_an_endpoint_of_the_vpc_is_set_where_there_is_one(template):
    name, url = "AWS_ENDPOINT_URL_DYNAMODB_STREAMS", "https://vpce-0abc.example.com"
    assert name not in Stack(template).environment("consumer")
    assert Stack(template, StreamsEndpoint=url).environment("consumer")[name] == url


# An application's own api

TARGET_GROUP = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/donations/0123456789abcdef"
APPLICATION = {
    "ApiImageUri": "registry.example.com/donations:1.2.3",
    "ApiPolicyArn": "arn:aws:iam::123456789012:policy/donations",
    "ApiSecretName": "DONATIONS_TOKEN",
    "ApiSecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:donations-AbCdEf",
    "ApiCallersSecurityGroupId": "sg-0fedcba9",
    "ApiTargetGroupArn": TARGET_GROUP,
}


def test_an_application_has_its_image_its_rights_and_its_secret(template, stack):
    own = Stack(template, **PLACEHOLDERS, **APPLICATION)
    assert own.refusals() == []
    assert own.container("api")["Image"] == APPLICATION["ApiImageUri"]
    assert own.container("api")["Secrets"] == [
        {"Name": "API_TOKEN", "ValueFrom": "SECRET_ARN"},
        {"Name": "DONATIONS_TOKEN", "ValueFrom": APPLICATION["ApiSecretArn"]},
    ]
    assert own.properties("ApiTaskRole")["ManagedPolicyArns"] == [APPLICATION["ApiPolicyArn"]]
    [secrets] = [s for s in own.statements("ExecutionRole") if s["Sid"] == "ReadToken"]
    assert secrets["Resource"] == ["SECRET_ARN", APPLICATION["ApiSecretArn"]]
    # The consumer is what it was, but for what it is told to hand over.
    assert own.properties("ConsumerTask") == stack.properties("ConsumerTask")
    assert own.properties("ConsumerTaskRole") == stack.properties("ConsumerTaskRole")


def test_its_image_may_be_pulled_from_where_it_is(template):
    streamgates, its = (PLACEHOLDERS["EcrRepositoryArn"], "arn:aws:ecr:REGION:ACCOUNT:repository/donations")
    for both in [(streamgates, its), ("", its), (streamgates, "")]:
        given = dict(zip(("EcrRepositoryArn", "ApiEcrRepositoryArn"), both, strict=True))
        stack = Stack(template, **{**PLACEHOLDERS, **given}, ApiImageUri="donations:1")
        [pull] = [s for s in stack.statements("ExecutionRole") if s["Sid"] == "PullImage"]
        assert pull["Resource"] == [arn for arn in both if arn]


def test_its_routes_are_for_those_who_are_named(template):
    own = Stack(template, **PLACEHOLDERS, **APPLICATION)
    [rule] = own.of_type("AWS::EC2::SecurityGroupIngress").values()
    assert (rule["GroupId"], rule["FromPort"], rule["ToPort"]) == ("ApiSecurityGroup.GroupId", 8080, 8080)
    assert rule["SourceSecurityGroupId"] == APPLICATION["ApiCallersSecurityGroupId"]
    service = own.properties("ApiService")
    assert service["LoadBalancers"] == [
        {"ContainerName": "api", "ContainerPort": 8080, "TargetGroupArn": TARGET_GROUP}
    ]
    private, public = service["ServiceConnectConfiguration"]["Services"]
    assert private["PortName"] == "private"
    assert public["ClientAliases"] == [{"DnsName": "api-public", "Port": 8080}]
    ports = {port["Name"]: port["ContainerPort"] for port in own.container("api")["PortMappings"]}
    assert ports[public["PortName"]] == 8080
    # Without it nothing of this is there.
    plain = Stack(template, **PLACEHOLDERS).properties("ApiService")
    assert not {"LoadBalancers", "HealthCheckGracePeriodSeconds"} & set(plain)


def test_the_consumer_is_told_what_to_hand_over(template):
    criteria = '{"Filters":[{"Pattern":"{\\"eventName\\":[\\"INSERT\\"]}"}]}'
    stack = Stack(template, FilterCriteria=criteria, FunctionResponseTypes="ReportBatchItemFailures")
    assert stack.environment("consumer")["FILTER_CRITERIA"] == criteria
    assert stack.environment("consumer")["FUNCTION_RESPONSE_TYPES"] == "ReportBatchItemFailures"
    plain = Stack(template).environment("consumer")
    assert not {"FILTER_CRITERIA", "FUNCTION_RESPONSE_TYPES"} & set(plain)
    assert plain["HANDLER_FORMAT"] == "lambda"
    stack = Stack(template, HandlerFormat="cloudevents")
    assert stack.environment("consumer")["HANDLER_FORMAT"] == "cloudevents"


def test_the_consumer_is_told_when_to_give_up(template):
    names = ("MAXIMUM_RETRY_ATTEMPTS", "MAXIMUM_RECORD_AGE_IN_SECONDS", "ON_FAILURE")
    given = {"MaximumRetryAttempts": "9", "MaximumRecordAgeInSeconds": "3600", "OnFailure": "none"}
    for parameters, told in [({}, ["-1", "-1", "api"]), (given, ["9", "3600", "none"])]:
        environment = Stack(template, **parameters).environment("consumer")
        assert [environment[name] for name in names] == told


# What is refused

PATTERNS = {
    "ClusterName": (["", "main", "Prod_1-a"], ["arn:aws:ecs:eu-central-1:123456789012:cluster/main", "a b"]),
    "ImageUri": (
        [
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/streamgate:0.1.0",
            "ghcr.io/acme/streamgate@sha256:" + "0" * 64,
        ],
        ["", "https://ghcr.io/acme/streamgate?x", "stream gate", "/streamgate"],
    ),
    "EcrRepositoryArn": (
        ["", "arn:aws-cn:ecr:cn-north-1:123456789012:repository/team/streamgate"],
        ["streamgate", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/streamgate", "*"],
    ),
    "StreamArn": (
        ["", STREAM, STREAM.replace("arn:aws:", "arn:aws-us-gov:")],
        [
            "orders",
            "arn:aws:dynamodb:eu-central-1:123456789012:table/orders",
            "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/",
            "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/*",
            "arn:aws:kinesis:eu-central-1:123456789012:stream/orders",
            STREAM.replace("123456789012", "1234"),
            STREAM + "/x",
            " " + STREAM,
        ],
    ),
    "TableName": (
        ["", "abc", "My.table_1-x", "a" * 255],
        ["ab", "a" * 256, "no spaces", "arn:aws:dynamodb:eu-central-1:123456789012:table/orders", "a/b"],
    ),
    "StreamsEndpoint": (
        ["", "https://vpce-0abc-1def.streams.dynamodb.eu-central-1.vpce.amazonaws.com"],
        ["vpce-0abc", "http://vpce-0abc.example.com", "https://vpce-0abc.example.com/path"],
    ),
    "Handler": (
        ["", "log", "http://127.0.0.1:3000/", "https://handler.internal/orders?x=1&y=2"],
        ["discard ", "handler:3000", "ftp://handler/", "http://", "https:///path", "http://a b/"],
    ),
    "ConsumerName": (["streamgate", "a.b_c-1"], ["", "a#b", "a b", "a" * 65, "orders,audit"]),
    "ApiToken": (["", "0123456789abcdef", "!" * 1024], ["short", "0123456789abcde", "with space 0123456", "ü" * 16]),
    "ObserverSecurityGroupId": (["", "sg-0123abcd"], ["0123abcd", "sg-", "10.0.0.0/8", "sg-XYZ12345"]),
    "FilterCriteria": (
        ["", '{"Filters":[{"Pattern":"{}"}]}'],
        ["[]", "Filters", '"{}"'],
    ),
    "MaximumRecordAgeInSeconds": (
        [str(age) for age in [-1, *range(60, 604_801)]],
        ["", "0", "-2", "59", "604801", "1000000", "060", "6e4", " 60"],
    ),
    "OnFailure": (
        ["api", "none", "http://127.0.0.1:3000/", "https://failed.internal/orders?x=1"],
        ["", "table", "API", "arn:aws:sqs:eu-central-1:123456789012:failed", "http://", "https://a b/"],
    ),
    "ApiImageUri": (
        ["", "ghcr.io/acme/donations@sha256:" + "0" * 64],
        ["https://ghcr.io/acme/donations?x", "two words"],
    ),
    "ApiEcrRepositoryArn": (
        ["", "arn:aws:ecr:eu-central-1:123456789012:repository/donations"],
        ["donations", "*"],
    ),
    "ApiPolicyArn": (
        ["", "arn:aws:iam::123456789012:policy/team/donations"],
        ["donations", "arn:aws:iam::aws:policy/AdministratorAccess", "arn:aws:iam::123456789012:role/x"],
    ),
    "ApiSecretName": (["", "SAVEALIFE_TOKEN", "_a1"], ["1a", "a-b", "a b", "a=b"]),
    "ApiSecretArn": (
        ["", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:savealife/token-AbCdEf"],
        ["savealife", "arn:aws:ssm:eu-central-1:123456789012:parameter/token"],
    ),
    "ApiCallersSecurityGroupId": (["", "sg-0123abcd"], ["0.0.0.0/0", "sg-"]),
    "ApiTargetGroupArn": (
        ["", TARGET_GROUP],
        [TARGET_GROUP.replace("targetgroup", "loadbalancer"), "donations"],
    ),
    "AlarmTopicArn": (
        ["", "arn:aws:sns:eu-central-1:123456789012:night"],
        ["night", "arn:aws:sqs:eu-central-1:123456789012:night", "arn:aws:sns:eu-central-1:123456789012:"],
    ),
}


def test_patterns_take_what_is_right_and_nothing_else(template):
    patterns = {
        name: parameter["AllowedPattern"]
        for name, parameter in template["Parameters"].items()
        if "AllowedPattern" in parameter
    }
    assert set(patterns) == set(PATTERNS)
    for name, (good, bad) in PATTERNS.items():
        # CloudFormation takes a value when the pattern matches all of it.
        taken = [text for text in good + bad if re.fullmatch(patterns[name], text)]
        assert taken == good, name


def test_what_is_refused_is_refused_in_a_sentence(template):
    for name, parameter in template["Parameters"].items():
        bounds = {"AllowedPattern", "MinValue", "MaxValue", "MinLength", "MaxLength"}
        if bounds & set(parameter):
            sentence = parameter["ConstraintDescription"]
            assert sentence.startswith(f"{name} ") and re.search(r"[.)_-]$", sentence), name


def test_the_bounds_of_numbers_are_the_documented_ones(root, template):
    for parameter, variable in [
        ("BatchSize", "BATCH_SIZE"),
        ("MaximumBatchingWindowInSeconds", "MAXIMUM_BATCHING_WINDOW_IN_SECONDS"),
    ]:
        meaning = re.search(rf"^\| `{variable}` .*", configuration(root), re.M)[0]
        low, high = re.search(r"(\d+) to (\d+)[.;]", meaning).groups()
        found = template["Parameters"][parameter]
        assert (found["MinValue"], found["MaxValue"]) == (int(low), int(high))
    # -1 stands for none.
    retries = re.search(r"^\| `MAXIMUM_RETRY_ATTEMPTS` .* (\d+) to (\d+); -1", configuration(root), re.M)
    assert template["Parameters"]["MaximumRetryAttempts"]["MaxValue"] == int(retries[2])
    ages = re.search(r"^\| `MAXIMUM_RECORD_AGE_IN_SECONDS` .* (\d+) to (\d+); -1", configuration(root), re.M)
    taken = PATTERNS["MaximumRecordAgeInSeconds"][0]
    assert (taken[1], taken[-1]) == ages.groups()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, ["Handler is missing."]),
        ({"Handler": "log"}, []),
        ({"Handler": "log", "StreamArn": STREAM}, []),
        ({"Handler": "log", "TableName": "orders", "StreamArn": STREAM}, []),
        ({"Handler": "log", "TableName": "orders"}, ["TableName is given, but StreamArn is not."]),
        ({"TableName": "orders"}, ["Handler is missing.", "TableName is given, but StreamArn is not."]),
        ({"Handler": "log", **APPLICATION}, []),
        (
            {"Handler": "log", **APPLICATION, "ApiSecretName": ""},
            ["ApiSecretName and ApiSecretArn go together."],
        ),
        (
            {"Handler": "log", **APPLICATION, "ApiSecretName": "API_TOKEN"},
            ["ApiSecretName is API_TOKEN, which is set already."],
        ),
        (
            {"Handler": "log", **APPLICATION, "ApiImageUri": ""},
            [
                "ApiEcrRepositoryArn, ApiPolicyArn and ApiSecretArn are for an application's own api, but"
                " ApiImageUri is not given."
            ],
        ),
    ],
)
def test_rules_refuse_what_no_pattern_can(template, parameters, says):
    refusals = Stack(template, **parameters).refusals()
    assert [re.match(r".*?\.", refusal)[0] for refusal in refusals] == says


# Alarms


def test_alarms_look_at_what_there_is(stack):
    own = {"IteratorAge": "Maximum", "Gaps": "Sum", "FailedInvokeEventCount": "Sum", "PolledEventCount": "SampleCount"}
    told = []
    for name, alarm in stack.of_type("AWS::CloudWatch::Alarm").items():
        dimensions = {one["Name"]: one["Value"] for one in alarm["Dimensions"]}
        match alarm["Namespace"]:
            case "Streamgate":
                assert dimensions == {
                    "Consumer": stack.environment("consumer")["CONSUMER_NAME"],
                    "Table": "STREAM_TABLE",
                }
                assert alarm["Statistic"] == own[alarm["MetricName"]]
                told.append((alarm["MetricName"], alarm["Threshold"], alarm["Period"] * alarm["EvaluationPeriods"]))
            case "AWS/ECS":
                assert alarm["MetricName"] == "CPUUtilization" and set(dimensions) == {"ClusterName", "ServiceName"}
            case "AWS/DynamoDB":
                assert alarm["MetricName"] == "WriteThrottleEvents" and dimensions == {"TableName": "TABLE_NAME"}
            case other:
                raise AssertionError(f"{name} looks at {other}")
        assert ("AlarmActions" in alarm, "OKActions" in alarm) == (False, False)
        if alarm["Statistic"] == "SampleCount":
            # It counts samples: none, and none reported, is what it is for.
            assert alarm["TreatMissingData"] == "breaching" and alarm["ComparisonOperator"] == "LessThanThreshold"
    assert sorted(told) == [
        ("FailedInvokeEventCount", 0, 900),
        ("Gaps", 0, 60),
        ("IteratorAge", 300_000, 300),
        ("IteratorAge", 21_600_000, 60),
        ("PolledEventCount", 1, 300),
    ]


def test_alarms_tell_the_topic_where_there_is_one(template):
    topic = "arn:aws:sns:eu-central-1:123456789012:night"
    for alarm in Stack(template, AlarmTopicArn=topic).of_type("AWS::CloudWatch::Alarm").values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic]


# The raw task definitions


def as_the_api_spells_it(node):
    """CloudFormation's capitals taken away: `StopTimeout` is `stopTimeout` to the API."""
    if isinstance(node, dict):
        return {key[0].lower() + key[1:]: as_the_api_spells_it(value) for key, value in node.items()}
    if isinstance(node, list):
        return [as_the_api_spells_it(item) for item in node]
    return node


@pytest.mark.parametrize("command", TASKS)
def test_template_and_raw_definition_are_the_same(stack, definitions, command):
    assert as_the_api_spells_it(stack.properties(TASKS[command])) == definitions[command]


@pytest.fixture(scope="module")
def register():
    """What is wrong with a definition, to the API's own model."""
    model = botocore.session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    return lambda definition: ParamValidator().validate(definition, shape).generate_report()


@pytest.mark.parametrize("command", TASKS)
def test_ecs_would_take_the_raw_definition(register, definitions, command):
    assert register(definitions[command]) == ""
    broken = json.loads(json.dumps(definitions[command]))
    broken["containerDefinitions"][0]["stopTimeout"] = "100"
    broken["containerDefinitions"][0]["readOnlyRootFilesystem"] = True
    assert register(broken).count("\n") == 1


def test_the_readme_fills_in_every_placeholder(root, definitions, register):
    """With the function that it shows, run by a shell."""
    readme = (root / "ecs" / "README.md").read_text()
    function = re.search(r"^fill\(\) \{\n.*?^\}\n", readme, re.M | re.S)[0]
    own = {
        "REGION": "eu-central-1",
        "ACCOUNT": "123456789012",
        "IMAGE": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/streamgate:0.1.0",
        "REPOSITORY": "streamgate",
        "TABLE_NAME": "progress",
        "STREAM_TABLE": "orders",
        "STREAM_LABEL": "2026-01-02T03:04:05.678",
        "SECRET_ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:streamgate-AbCdEf",
        "LOG_GROUP": "/ecs/streamgate",
        "HANDLER_URL": "https://handler.internal/orders",
    }
    for name in own:
        assert f"`{name}`" in readme, name

    def filled_in(*path):
        command = ["sh", "-euc", function + 'fill "$1"', "sh", str(root.joinpath(*path))]
        done = subprocess.run(command, env={"PATH": "/usr/bin:/bin", **own}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    for command in TASKS:
        definition = filled_in("ecs", f"task-definition-{command}.json")
        assert register(definition) == ""
        (container,) = definition["containerDefinitions"]
        values = {one["name"]: one["value"] for one in container["environment"]}
        (before,) = definitions[command]["containerDefinitions"]
        assert list(values) == [one["name"] for one in before["environment"]]
        assert values["TABLE_NAME"] == "progress"
        assert container["secrets"] == [{"name": "API_TOKEN", "valueFrom": own["SECRET_ARN"]}]
        left = json.dumps(definition).replace("AWS_REGION", "").replace('"name": "TABLE_NAME"', "")
        assert [name for name in own if re.search(rf"\b{name}\b", left)] == []
        if command == "consumer":
            assert (values["STREAM_ARN"], values["HANDLER"]) == (STREAM, own["HANDLER_URL"])
        else:
            assert values["AWS_REGION"] == "eu-central-1"
    for path in [("ecs", "execution-role.json"), ("task-policies", "trust-ecs.json")]:
        left = json.dumps(filled_in(*path))
        assert [name for name in own if re.search(rf"\b{name}\b", left)] == []


def test_a_linter_of_iam_finds_nothing_in_the_execution_role(root):
    text = (root / "ecs" / "execution-role.json").read_text()
    text = text.replace("SECRET_ARN", "arn:aws:secretsmanager:REGION:ACCOUNT:secret:streamgate-AbCdEf")
    text = text.replace("REGION", "eu-central-1").replace("ACCOUNT", "123456789012")
    assert findings(text) == []
    assert findings(text.replace("GetSecretValue", "GetSecretValues")) != []


# The trust policies


def findings(text):
    analysed = parliament.analyze_policy_string(text)
    return [f"{finding.issue}: {finding.title} {finding.detail}" for finding in analysed.findings]


def trust_template(document):
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": document}}
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Role": role}})


def test_trust_policies_lint_clean(root):
    for name in TRUST:
        text = (root / "task-policies" / name).read_text().replace("ACCOUNT", "123456789012")
        document = json.loads(text)
        assert [str(match) for match in lint(trust_template(document))] == [], name
        # parliament judges actions and condition keys, but knows no trust policies: as if these
        # were the permissions to assume a role. It does not know a provider's own keys.
        (statement,) = document["Statement"]
        del statement["Principal"]
        statement["Resource"] = "arn:aws:iam::123456789012:role/streamgate"
        if "oidc" not in text.lower():
            assert findings(json.dumps(document)) == [], name


def test_the_linters_find_what_is_wrong_with_trust(root):
    document = json.loads((root / "task-policies" / "trust-ecs.json").read_text())
    del document["Statement"][0]["Principal"]
    assert lint(trust_template(document)) != []
    document["Statement"][0]["Resource"] = "arn:aws:iam::123456789012:role/streamgate"
    document["Statement"][0]["Action"] = "sts:AssumeRoles"
    assert any("UNKNOWN" in finding for finding in findings(json.dumps(document)))


def test_trust_is_for_one_account_and_one_workload(root):
    ecs, irsa, pod = (policy(root, "task-policies", name) for name in TRUST)
    assert ecs == [
        {
            "Sid": "EcsTasks",
            "Effect": "Allow",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "ArnLike": {"aws:SourceArn": "arn:aws:ecs:REGION:ACCOUNT:*"},
                "StringEquals": {"aws:SourceAccount": "ACCOUNT"},
            },
        }
    ]
    ((irsa,), (pod,)) = irsa, pod
    assert irsa["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert irsa["Principal"] == {"Federated": "arn:aws:iam::ACCOUNT:oidc-provider/OIDC_PROVIDER"}
    # Equal, and not like: a pattern would let other service accounts in.
    assert irsa["Condition"] == {
        "StringEquals": {
            "OIDC_PROVIDER:aud": "sts.amazonaws.com",
            "OIDC_PROVIDER:sub": "system:serviceaccount:NAMESPACE:SERVICE_ACCOUNT",
        }
    }
    assert pod["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert pod["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert pod["Condition"] == {
        "StringEquals": {
            "aws:SourceAccount": "ACCOUNT",
            "aws:RequestTag/eks-cluster-arn": "arn:aws:eks:REGION:ACCOUNT:cluster/CLUSTER",
            "aws:RequestTag/kubernetes-namespace": "NAMESPACE",
            "aws:RequestTag/kubernetes-service-account": "SERVICE_ACCOUNT",
        }
    }
