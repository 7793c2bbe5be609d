"""The application's side: `create` makes a table with a stream and an index and prints the
stream's ARN, `put FIRST LAST` writes that many rounds of ten items, `got` prints what the handler
got, `ask ROUTE [JSON]` what the example's api answers."""

import sys
import time
import urllib.request

import botocore.session

TABLE = "orders"


def client():
    return botocore.session.get_session().create_client("dynamodb")


def create():
    key = lambda name, kind: {"AttributeName": name, "KeyType": kind}
    index = dict(
        IndexName="SK-PK-index",
        KeySchema=[key("SK", "HASH"), key("PK", "RANGE")],
        Projection={"ProjectionType": "ALL"},
    )
    table = dict(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[key("PK", "HASH"), key("SK", "RANGE")],
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")
        ],
        GlobalSecondaryIndexes=[index],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    # The server may still be starting.
    for _ in range(100):
        try:
            print(client().create_table(**table)["TableDescription"]["LatestStreamArn"])
            return
        except botocore.exceptions.EndpointConnectionError:
            time.sleep(0.1)
    sys.exit("the table's server does not answer")


def put(first, last):
    table = client()
    for n in range(int(first), int(last)):
        for item in range(10):
            table.put_item(
                TableName=TABLE,
                Item={"PK": {"S": f"item-{item}"}, "SK": {"S": "x"}, "n": {"N": str(n)}},
            )


def got():
    show("http://handler:3000/got")


def ask(route, body=None):
    kind = {"Content-Type": "application/json"}
    show(urllib.request.Request(f"http://api:8080{route}", body and body.encode(), kind))


def show(request):
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.read().decode())


globals()[sys.argv[1]](*sys.argv[2:])
