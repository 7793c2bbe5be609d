"""The policies of task-policies and of the example, as a linter of IAM reads them.

Whether they are the least that the program needs is not a linter's to say: the tests of the
program compare them with what it calls.
"""

import json

import parliament
import pytest

ROLES = [
    "task-policies/api.json",
    "task-policies/consumer.json",
    "task-policies/consumer-without-api.json",
    "examples/savealife/policies/api.json",
    "examples/savealife/policies/consumer.json",
]
OWN = {
    "REGION": "eu-central-1",
    "ACCOUNT": "123456789012",
    "STREAM_TABLE": "orders",
    # The linter takes the colons of a real one for the ARN's.
    "STREAM_LABEL": "2026-01-02T03.04.05.678",
    "TABLE_NAME": "orders",
    "LOG_GROUP": "/ecs/streamgate",
}


def filled_in(text):
    for placeholder, own in OWN.items():
        text = text.replace(placeholder, own)
    return text


def findings(text):
    policy = parliament.analyze_policy_string(filled_in(text))
    return [f"{finding.issue}: {finding.title} {finding.detail}" for finding in policy.findings]


@pytest.mark.parametrize("role", ROLES)
def test_a_linter_of_iam_finds_nothing(root, role):
    assert findings((root / role).read_text()) == []


def test_the_linter_finds_what_is_wrong(root):
    """So that its silence above means something."""
    policy = json.loads((root / "task-policies" / "api.json").read_text())
    policy["Statement"][0]["Action"].append("dynamodb:GetRecords")
    assert any("RESOURCE" in finding for finding in findings(json.dumps(policy)))
    policy["Statement"][0]["Action"][-1] = "dynamodb:ReadEverything"
    assert any("UNKNOWN" in finding for finding in findings(json.dumps(policy)))


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_allowed_on_everything(root, role):
    for statement in json.loads((root / role).read_text())["Statement"]:
        assert statement["Resource"] != "*" and "*" not in statement["Action"]
        assert not any("*" in action for action in statement["Action"])
