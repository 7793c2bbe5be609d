"""A handler for CloudEvents, with their SDK: it judges each event of a batch, refuses some records
once and one until it is mended, and names what failed. It prints its port, ends with its standard
input, and writes what it handles to the file that is its argument, what it finds fault with to
another beside it.

The SDK reads one event at a time and knows no batches: each element goes through it.
"""

import base64
import hmac
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

got, secret = sys.argv[1], base64.b64decode(sys.argv[2].removeprefix("whsec_"))
refused = set()


def judge(headers, body):
    """The events of a request that is what CloudEvents and Standard Webhooks ask for."""
    assert headers["Content-Type"] == "application/cloudevents-batch+json", headers
    assert "Transfer-Encoding" not in headers and not [name for name in headers if name.startswith("ce-")]
    signed = ".".join([headers["webhook-id"], headers["webhook-timestamp"], ""]).encode() + body
    tag = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{tag}", "the signature is of the body"
    events = [JSONFormat().read(CloudEvent, json.dumps(event)) for event in json.loads(body)]
    assert events, "a batch has events"
    sequences = [event.get_extension("sequence") for event in events]
    assert sequences == sorted(sequences), "in order as text"
    for event in events:
        record = event.get_data()
        assert event.get_specversion() == "1.0" and event.get_datacontenttype() == "application/json"
        assert event.get_id() == record["eventID"]
        assert event.get_source() == record["eventSourceARN"]
        assert event.get_source().split("/")[1] == event.get_subject()
        assert event.get_type() == "com.amazonaws.dynamodb." + record["eventName"]
        assert event.get_time().timestamp() == record["dynamodb"]["ApproximateCreationDateTime"]
        assert int(event.get_extension("sequence")) == int(record["dynamodb"]["SequenceNumber"])
        if "userIdentity" in record:
            assert set(record["userIdentity"]) == {"principalId", "type"}, "as Lambda spells it"
    return events


def refuses(item, n):
    if (item, n) == ("item-0", "7"):
        return not os.path.exists(got + ".mended")
    new = n in ("3", "5") and (item, n) not in refused
    refused.add((item, n))
    return new


def handle(events):
    for event in events:
        record = event.get_data()["dynamodb"]
        item, n = record["Keys"]["PK"]["S"], record.get("NewImage", {}).get("n", {}).get("N", "-")
        if refuses(item, n):
            # Either is the number.
            name = event.get_extension("sequence") if n == "3" else record["SequenceNumber"]
            return {"batchItemFailures": [{"itemIdentifier": name}]}
        with open(got, "a") as lines:
            lines.write(f"{item} {event.get_type().rpartition('.')[2]} {n}\n")
    return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            status, answer = 200, handle(judge(self.headers, body))
        except Exception as error:
            with open(got + ".faults", "a") as faults:
                faults.write(f"{error!r} in {body!r}\n")
            status, answer = 500, {}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
