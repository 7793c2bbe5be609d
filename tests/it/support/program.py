"""A handler as a program: an event a line on stdin, an answer a line on stdout. Misbehaves once
for each of some records; what it handles it writes to the file that is its argument."""

import json
import os
import sys
import time

got = sys.argv[1]
# Ends after each answer.
leaves = sys.argv[2:] == ["leaves"]


def once(what):
    """Whether this is the first time, over all children."""
    try:
        os.close(os.open(f"{got}.{what}", os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


secret = "and knows a secret" if "API_TOKEN" in os.environ else ""
print("the program is here", secret, file=sys.stderr, flush=True)
for line in sys.stdin:
    failed = []
    for record in json.loads(line)["Records"]:
        image, number = record["dynamodb"]["NewImage"], record["dynamodb"]["SequenceNumber"]
        n = int(image["n"]["N"])
        if n == 3 and once("ends"):
            sys.exit(7)
        if n == 4 and once("hangs"):
            time.sleep(600)
        if n == 5 and once("fails"):
            failed.append({"itemIdentifier": number})
        elif not failed:
            with open(got, "a") as lines:
                lines.write(f"{image['PK']['S']} {n}\n")
    answer = json.dumps({"batchItemFailures": failed})
    talks = any(r["dynamodb"]["NewImage"]["n"]["N"] == "6" for r in json.loads(line)["Records"])
    print(answer + "\nby the way" if talks and once("talks") else answer, flush=True)
    if leaves:
        break
