"""Tables, roles and calls on a ministack that judges policies, for as long as it is asked.

stdin: lines of {"id": ID, "endpoint": URL, "account": ID, "do": [[WHAT, {ARGUMENTS}], …]};
stdout: for each, in any order, {"id": ID, "results": […]} or {"id": ID, "error": TEXT}. What
is done is done by the root user of the account, whose key is the account's ID.
"""

import json
import sys
import threading
import traceback

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "us-east-1"
# Whom this thread works for.
WORK = threading.local()
# Clients may be used by several threads, but not made by several.
SESSION, MAKING = botocore.session.get_session(), threading.Lock()
WRITING = threading.Lock()


def client(service, keys=None):
    keys = keys or {"AccessKeyId": WORK.account, "SecretAccessKey": "test"}
    with MAKING:
        return SESSION.create_client(
            service,
            region_name=REGION,
            endpoint_url=WORK.endpoint,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(retries={"max_attempts": 0}, parameter_validation=False),
        )


def table(name):
    """Makes a table with a stream; gives the stream's ARN."""
    made = client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "PK", "KeyType": "HASH"},
            {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": key, "AttributeType": "S"} for key in ("PK", "SK")
        ],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return made["TableDescription"]["LatestStreamArn"]


def iterator(stream):
    """An iterator of the stream's first shard."""
    streams = client("dynamodbstreams")
    shards = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
    return streams.get_shard_iterator(
        StreamArn=stream, ShardId=shards[0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]


def put(table, first, last):
    """Writes so many rounds of three items."""
    dynamodb = client("dynamodb")
    for n in range(first, last):
        for item in "abc":
            key = {"PK": {"S": item}, "SK": {"S": "item"}}
            dynamodb.put_item(TableName=table, Item={**key, "n": {"N": str(n)}})


def items(table):
    """Every item, in some order that stays."""
    found = client("dynamodb").scan(TableName=table)["Items"]
    return sorted(found, key=lambda item: item["PK"]["S"] + item["SK"]["S"])


def role(name, policy):
    """Makes a role that may do what the policy says."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
        ],
    }
    iam = client("iam")
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName="it", PolicyDocument=json.dumps(policy))
    return made["Role"]["Arn"]


def policy(role, policy):
    """Puts another policy in the place of a role's."""
    client("iam").put_role_policy(
        RoleName=role, PolicyName="it", PolicyDocument=json.dumps(policy)
    )


def assume(role, session):
    """The keys of a session of a role."""
    keys = client("sts").assume_role(RoleArn=role, RoleSessionName=session)["Credentials"]
    return {**keys, "Expiration": keys["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")}


def session(name, policy):
    """The keys of a session of a new role that may do what the policy says."""
    return assume(role(name, policy), "it")


def sessions(role, session, count):
    """The keys of several sessions of a role, one after the other."""
    return [assume(role, session) for _ in range(count)]


def example(shape, name, own):
    """Something of a shape: what the test names for a member, else anything."""
    if name in own:
        return own[name]
    if shape.type_name == "structure":
        required = {member: shape.members[member] for member in shape.required_members}
        return {member: example(of, member, own) for member, of in required.items()}
    if shape.type_name == "list":
        return [example(shape.member, name, own)]
    if shape.type_name == "map":
        return {own.get("TableName", "k"): example(shape.value, name, own)}
    if shape.type_name == "string":
        return (shape.enum or ["x" * 8])[0]
    return {"integer": 1, "long": 1, "boolean": False, "timestamp": 0}.get(shape.type_name, "x")


def calls(keys, service, own):
    """Every call of a service, on what `own` names; gives how each was answered."""
    asked = client(service, keys)
    model = asked.meta.service_model
    answers = {}
    for name in model.operation_names:
        operation = model.operation_model(name)
        given = example(operation.input_shape, "", own) if operation.input_shape else {}
        # Members that are not required and still say what is asked about.
        members = operation.input_shape.members if operation.input_shape else {}
        given.update({member: own[member] for member in members if member in own})
        try:
            asked._make_api_call(name, given)
            answers[name] = "allowed"
        except ClientError as error:
            answers[name] = error.response["Error"]["Code"]
    return answers


def work(line):
    asked = json.loads(line)
    WORK.endpoint, WORK.account = asked["endpoint"], asked["account"]
    try:
        answer = {"results": [globals()[what](**arguments) for what, arguments in asked["do"]]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    with WRITING:
        print(json.dumps({"id": asked["id"], **answer}), flush=True)


for line in sys.stdin:
    threading.Thread(target=work, args=(line,), daemon=True).start()
