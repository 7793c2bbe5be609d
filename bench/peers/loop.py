"""A loop of boto3 over all shards of a stream: what one writes without a library.

One thread; parents before their children; counts the records, and keeps a position a second and
shard. A pass over the shards that brought nothing is followed by a second's wait, and new shards
are looked for once a minute and where one has ended. A line on stdin asks for the counts, which are
a line of JSON on stdout. Peer of bench/peers/run, from which it has its environment.
"""

import collections
import json
import os
import sys
import threading
import time

import boto3

STREAM, TABLE, NAME = (os.environ[name] for name in ("STREAM_ARN", "TABLE_NAME", "CONSUMER_NAME"))
IDLE, CHECKPOINT, LISTING = 1.0, 1.0, 60.0

streams, table = boto3.client("dynamodbstreams"), boto3.client("dynamodb")
records = 0
asked_of_table = collections.Counter()


def answer():
    for _ in sys.stdin:
        print(json.dumps({"records": records, "table": asked_of_table}), flush=True)
    os._exit(0)


class Shard:
    def __init__(self, name, parent):
        self.name, self.parent = name, parent
        self.iterator, self.last, self.written, self.ended = None, None, time.monotonic(), False

    def read(self):
        """One page; how many records it had."""
        if self.iterator is None:
            start = {"StreamArn": STREAM, "ShardId": self.name, "ShardIteratorType": "TRIM_HORIZON"}
            self.iterator = streams.get_shard_iterator(**start)["ShardIterator"]
        page = streams.get_records(ShardIterator=self.iterator, Limit=1000)
        self.iterator = page.get("NextShardIterator")
        self.ended = self.iterator is None
        if page["Records"]:
            self.last = page["Records"][-1]["dynamodb"]["SequenceNumber"]
        return len(page["Records"])

    def checkpoint(self):
        now = time.monotonic()
        if self.ended or self.last and now - self.written >= CHECKPOINT:
            position = {"S": "ended" if self.ended else self.last}
            table.put_item(TableName=TABLE, Item={"PK": {"S": NAME}, "SK": {"S": self.name}, "position": position})
            asked_of_table["PutItem"] += 1
            self.last, self.written = None, now


def listing(known):
    start = {}
    while True:
        page = streams.describe_stream(StreamArn=STREAM, **start)["StreamDescription"]
        for one in page["Shards"]:
            known.setdefault(one["ShardId"], Shard(one["ShardId"], one.get("ParentShardId")))
        if "LastEvaluatedShardId" not in page:
            return time.monotonic()
        start = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}


threading.Thread(target=answer, daemon=True).start()
shards, ended = {}, False
listed = listing(shards)
while True:
    if ended or time.monotonic() - listed >= LISTING:
        listed = listing(shards)
    brought, ended = 0, False
    for shard in shards.values():
        parent = shards.get(shard.parent)
        if shard.ended or parent and not parent.ended:
            continue
        count = shard.read()
        shard.checkpoint()
        records += count
        brought += count
        ended |= shard.ended
    if not brought:
        time.sleep(IDLE)
