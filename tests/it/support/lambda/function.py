"""A function as its users write it, with Powertools' batch processor. It does not know that it
runs in a container; what it handles it writes to the file GOT, a line a record, and what it is told
of a trace to TRACED, where there is one."""

import os
import time

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

processor = BatchProcessor(event_type=EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)


def handle_record(record):
    image = record.dynamodb.new_image
    if image["n"] == 3:
        raise ValueError("three is refused")
    with open(os.environ["GOT"], "a") as got:
        got.write(f"{image['PK']} {image['n']}\n")


def handle(event, context):
    if "TRACED" in os.environ:
        with open(os.environ["TRACED"], "w") as traced:
            traced.write(os.environ.get("_X_AMZN_TRACE_ID", ""))
    numbers = {r["dynamodb"]["NewImage"]["n"]["N"] for r in event["Records"]}
    if "50" in numbers:
        raise RuntimeError("fifty is too much for all of it")
    if "60" in numbers and not os.path.exists(os.environ["GOT"] + ".slow"):
        open(os.environ["GOT"] + ".slow", "w").close()
        time.sleep(8)
    return process_partial_response(event, handle_record, processor, context)
