"""A stream's endpoint that judges each signature by botocore, and answers with empty pages.

Prints its address; then a line for each call: its operation, `good` or `bad`, and `sdk` where it
says which try it is, as only the SDK's own calls do.
"""

import hmac
import http.server
import json

import botocore.auth
import botocore.awsrequest
import botocore.credentials

ACCESS_KEY, SECRET, TOKEN = "AKIDJUDGED", "its/secret+key", "its+token=="
SHARD = {"ShardId": "shardId-1", "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
DESCRIPTION = {"StreamStatus": "ENABLED", "Shards": [SHARD]}
ANSWERS = {
    "DescribeStream": {"StreamDescription": DESCRIPTION},
    "GetShardIterator": {"ShardIterator": "first"},
    "GetRecords": {"Records": [], "NextShardIterator": 'a "quoted" one/+=|2'},
}


def signature(handler, body):
    """What botocore signs the same request with, at the time that it names."""
    _, authorization = handler.headers["authorization"].split(" ", 1)
    members = dict(member.strip().split("=", 1) for member in authorization.split(","))
    key, _, region, service, _ = members["Credential"].split("/")
    assert (key, handler.headers["x-amz-security-token"]) == (ACCESS_KEY, TOKEN)
    credentials = botocore.credentials.Credentials(ACCESS_KEY, SECRET, TOKEN)
    auth = botocore.auth.SigV4Auth(credentials, service, region)
    signed = members["SignedHeaders"].split(";")
    request = botocore.awsrequest.AWSRequest(
        method=handler.command,
        url=f"http://{handler.headers['host']}{handler.path}",
        data=body,
        headers={name: handler.headers[name] for name in signed},
    )
    request.context["timestamp"] = handler.headers["x-amz-date"]
    canonical = auth.canonical_request(request)
    return auth.signature(auth.string_to_sign(request, canonical), request), members["Signature"]


class Judge(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        json.loads(body)
        operation = self.headers["x-amz-target"].split(".")[1]
        is_good = hmac.compare_digest(*signature(self, body))
        by = "sdk" if self.headers["amz-sdk-request"] else "repeated"
        print(operation, "good" if is_good else "bad", by, flush=True)
        refusal = {"__type": "x#InvalidSignatureException"}
        answer = json.dumps(ANSWERS[operation] if is_good else refusal).encode()
        self.send_response(200 if is_good else 400)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
print(*server.server_address, flush=True)
server.serve_forever()
