"""A handler over HTTP on port 3000: takes every batch; GET /got tells what it got."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOT = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for record in event["Records"]:
            item = record["dynamodb"]["NewImage"]
            GOT.append([item["PK"]["S"], int(item["n"]["N"])])
        self.answer(b"")

    def do_GET(self):
        self.answer(json.dumps(GOT).encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", 3000), Handler).serve_forever()
