"""Runs ministack and ends it when standard input closes.

The test binary holds the other end of the pipe: however it ends, killed included, the
pipe closes and no server is left behind.
"""

import json
import os
import re
import sys
import threading
import time


def end_with_the_tests():
    while os.read(0, 4096):
        pass
    os._exit(0)


threading.Thread(target=end_with_the_tests, daemon=True).start()

from ministack.app import main  # noqa: E402  (slow to import; the watch comes first)


def teach_dynamodb():
    """What AWS judges a DynamoDB call by and ministack does not know: the stream of a call
    to one, and the partition keys of a call to items: of a table whose key is named PK, or of
    the index that a query names."""
    from ministack.core import iam_actions
    from ministack.services import dynamodb_streams

    resource, context = iam_actions.extract_resource_arn, iam_actions.dynamodb_service_context

    def extract_resource_arn(service, method, path, headers, body, *others, **more):
        if service.startswith("dynamodb"):
            call = json.loads(body or b"{}")
            if "StreamArn" in call:
                return call["StreamArn"]
            if "ShardIterator" in call:
                iterator = dynamodb_streams._decode_iterator(call["ShardIterator"]) or {}
                return iterator.get("arn", "*")
        return resource(service, method, path, headers, body, *others, **more)

    def service_context(body):
        call = json.loads(body or b"{}")
        known = context(body)
        key = call.get("Key") or call.get("Item") or {}
        # An index has a partition key of its own. Its value is the first that is asked for.
        asked = re.match(r"#?\w+ = (:\w+)", call.get("KeyConditionExpression") or "")
        values = call.get("ExpressionAttributeValues") or {}
        leading = key.get("PK") or (asked and values.get(asked[1]))
        if leading:
            known["dynamodb:LeadingKeys"] = [leading["S"]]
        return known

    iam_actions.extract_resource_arn = extract_resource_arn
    iam_actions.dynamodb_service_context = service_context


def shorten_sessions():
    """Sessions whose name begins with `short` end after so many seconds, not 15 minutes."""
    from ministack.services import sts

    register = sts.register_session

    def register_session(access_key, session):
        if "/short" in session["Arn"]:
            session["Expiration"] = time.time() + float(os.environ["SHORT_SESSION_SECONDS"])
        register(access_key, session)

    sts.register_session = register_session


if os.environ.get("AUTH") == "true":
    teach_dynamodb()
    shorten_sessions()
sys.argv = ["ministack"]
main()
