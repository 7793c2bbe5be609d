"""What stands around the page in its tests: a table, a stream that can be split and trimmed, a
handler that can be told to fail, the api and two consumers, all real processes of the binary.

Invariant: nothing is left running when `World.stop` has returned.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).parents[2]
BINARY = pathlib.Path(os.environ.get("STREAMGATE_BINARY", ROOT / "target/debug/streamgate"))
TOKEN = "a-token-for-tests-only"
ARN = "arn:aws:dynamodb:eu-central-1:123456789012:table/people/stream/2026-01-02T03:04:05.678"
LABEL = ARN.rsplit("/", 1)[1]
LIMIT = 60
# No proxy of this machine's environment is for us.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def until(what, found):
    """Asks until there is something, but not for ever."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {LIMIT} s for {what}")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Handler:
    """Takes batches, but for those with a number that it was told not to take."""

    def __init__(self):
        self.got, self.poison, self.says = [], set(), "no"
        handler = self

        class Routes(BaseHTTPRequestHandler):
            def do_POST(self):
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                images = [record["dynamodb"].get("NewImage", {}) for record in event["Records"]]
                numbers = {int(image["n"]["N"]) for image in images if "n" in image}
                fails = bool(numbers & handler.poison)
                if not fails:
                    handler.got.extend(sorted(numbers))
                self.send_response(500 if fails else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Routes)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Program:
    """A process of the binary. What it says on stderr is kept in a file."""

    def __init__(self, *arguments, **variables):
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [BINARY, *arguments],
            env={"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "eu-central-1",
                 "LOG_FORMAT": "json", **variables},
            stdin=subprocess.DEVNULL, stdout=self.said, stderr=subprocess.STDOUT,
        )

    def output(self):
        self.said.flush()
        self.said.seek(0)
        return self.said.read()

    def lines(self, message):
        """The log lines with this message."""
        lines = [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]
        return [line for line in lines if message in line.get("message", "")]

    def until_says(self, text):
        def found():
            assert self.process.poll() is None, self.output()
            return text in self.output()

        until(text, found)

    def status(self):
        """What a consumer says of itself."""
        [line] = self.lines("listening")
        with OPENER.open(f"http://{line['address']}/status", timeout=10) as answer:
            return json.load(answer)

    def until_reads_nothing(self):
        states = lambda: {shard["state"] for shard in self.status()["shards"].values()}
        until("the pause of all shards", lambda: states() <= {"paused", "ended"})

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode


class World:
    def __init__(self):
        self.running = []
        self.handler = Handler()
        self.table_port, self.stream_port, private = free_port(), free_port(), free_port()
        self.private = f"127.0.0.1:{private}"
        self.url = f"http://localhost:{private}/page/"
        self.next = 0
        table = self.start("local", "--dynamodb-only", "--port", str(self.table_port), "--stream-port", "0")
        stream = self.start("simulate", "--listen", f"127.0.0.1:{self.stream_port}", "--shards", "2",
                            "--stream-arn", ARN)
        table.until_says("Table people")
        until("the simulator", lambda: self.simulator("state"))
        self.api = self.start_api()
        self.consumers = [self.start_consumer("orders", "1"), self.start_consumer("audit", "-1")]

    def start(self, *arguments, **variables):
        program = Program(*arguments, **variables)
        self.running.append(program)
        return program

    def start_api(self):
        api = self.start(
            "api", TABLE_NAME="people", API_TOKEN=TOKEN, CONSUMER_NAME="orders,audit",
            LISTEN="127.0.0.1:0", PRIVATE_LISTEN=self.private,
            AWS_ENDPOINT_URL_DYNAMODB=f"http://127.0.0.1:{self.table_port}",
        )
        api.until_says("the table can be used")
        return api

    def start_consumer(self, name, retries):
        return self.start(
            "consumer", STREAM_ARN=ARN, TABLE_NAME="people", API_URL=f"http://{self.private}", API_TOKEN=TOKEN,
            CONSUMER_NAME=name, HANDLER=self.handler.url, LISTEN="127.0.0.1:0", BATCH_SIZE="10",
            MAXIMUM_RETRY_ATTEMPTS=retries, FAILOVER_TIME="3s", CHECKPOINT_INTERVAL="100ms",
            POLL_INTERVAL_MIN="50ms", POLL_INTERVAL_MAX="200ms", HOSTNAME=f"{name}-1",
            AWS_ENDPOINT_URL_DYNAMODB_STREAMS=f"http://127.0.0.1:{self.stream_port}",
        )

    def restart_api(self):
        self.api.stop(signal.SIGKILL)
        self.api = self.start_api()

    def simulator(self, call, body=None):
        url = f"http://127.0.0.1:{self.stream_port}/_simulator/{call}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with OPENER.open(urllib.request.Request(url, data), timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def put(self, item, **image):
        """Changes an item; its number is the answer."""
        self.next += 1
        keys = {"PK": {"S": item}, "SK": {"S": "1"}}
        image = {**keys, "n": {"N": str(self.next)}, **image}
        assert self.simulator("put", {"kind": "MODIFY", "keys": keys, "new_image": image})
        return self.next

    def put_poison(self, item, **image):
        """The handler does not take it until `heal`."""
        self.handler.poison.add(self.next + 1)
        return self.put(item, **image)

    def heal(self):
        self.handler.poison.clear()

    def stop(self):
        for program in reversed(self.running):
            program.stop(signal.SIGKILL)
        self.handler.stop()
