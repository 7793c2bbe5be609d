"""The stage of bench/peers/run: a simulated stream, an embedded table, and a peer that runs on them.

Owns processes, from their start to their end by id, what /proc says of them, and what is asked of the
simulator. Knows nothing of the peers but their command and environment.
"""

import http.client
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/people/stream/2026-01-01T00:00:00.000"
TABLE = "progress"
CALLS = ("GetRecords", "GetShardIterator", "DescribeStream")
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A sentence for who runs it."""


def ask(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Waiting:
    """For something to become true, and not for ever."""

    def __init__(self, what, seconds):
        self.what, self.seconds, self.began = what, seconds, time.monotonic()

    def passed(self):
        return time.monotonic() - self.began

    def look(self, running=None):
        if running and running.process.poll() is not None:
            raise Failed(f"it ended while the bench waited for {self.what}; it said {running.last_words()}")
        if self.passed() > self.seconds:
            raise Failed(f"the bench gave up on {self.what} after {self.seconds:.0f} s")
        time.sleep(0.05)


class Process:
    """A child, what it says in a file, and its account in /proc."""

    def __init__(self, command, environment, stdin=None, stdout=None):
        self.log = tempfile.TemporaryFile()
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "JAVA_HOME") if name in os.environ}
        self.process = subprocess.Popen(list(map(str, command)), env=base | environment, text=True,
                                        stdin=stdin or subprocess.DEVNULL, stdout=stdout or self.log, stderr=self.log)

    def said(self):
        # Not read(): the child writes where the file's position is.
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")

    def last_words(self):
        """What tells most of why it ended: the line of an exception, or its last."""
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return next((line for line in lines if line.startswith("Exception")), lines[-1] if lines else "nothing")

    def find(self, pattern, what):
        """The number of a port that it says it listens on."""
        waiting = Waiting(what, 60)
        while not (found := re.search(pattern, self.said())):
            waiting.look(self)
        return int(found.group(1))

    def cpu(self):
        """Seconds of user and system time so far, of all its threads."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def count(self, line):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"^{line}:\s+(\d+)", status.read(), re.MULTILINE).group(1))

    def mib(self, line):
        return self.count(line) / 1024

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


class Running(Process):
    """A peer. It is asked for its counts on its stdin, or by HTTP where it has metrics."""

    def __init__(self, peer, stage):
        super().__init__(peer.command(), peer.environment | {
            "STREAM_ARN": ARN, "TABLE_NAME": TABLE, "CONSUMER_NAME": f"bench-{random.getrandbits(64):016x}",
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{stage.table_port}",
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": f"http://127.0.0.1:{stage.port}",
        }, stdin=None if peer.has_metrics else subprocess.PIPE, stdout=None if peer.has_metrics else subprocess.PIPE)
        listening = r'"listening[^\n]*"address":"127\.0\.0\.1:(\d+)"'
        self.metrics = self.find(listening, f"{peer.name} to listen") if peer.has_metrics else None

    def counts(self):
        """Records so far, and calls on the table by operation."""
        if self.metrics is None:
            try:
                self.process.stdin.write("\n")
                self.process.stdin.flush()
                return json.loads(self.process.stdout.readline())
            except (OSError, ValueError) as failure:
                raise Failed(f"it does not answer; it said {self.last_words()}") from failure
        _, text = ask(self.metrics, "/metrics")
        records = re.findall(r"^streamgate_records_delivered_total(?:\{.*\})? (\d+)", text, re.MULTILINE)
        calls = re.findall(r'^streamgate_aws_requests_total\{.*?operation="(\w+)".*\} (\d+)', text, re.MULTILINE)
        # Without an api its calls on the table stand among those on the stream.
        calls = [(operation, value) for operation, value in calls if operation not in CALLS]
        table = {}
        for operation, value in calls:
            table[operation] = table.get(operation, 0) + int(value)
        return {"records": sum(map(int, records)), "table": table}


class Stage:
    """A stream as the flags say, a table, and what is started on them; all ended at its own end."""

    def __init__(self, binary, flags):
        self.running = []
        try:
            stream = self.process([binary, "simulate", "--listen", "127.0.0.1:0", "--stream-arn", ARN, *flags])
            table = self.process([binary, "local", "--dynamodb-only", "--port", 0, "--stream-port", 0], {"TABLE_NAME": TABLE})
            self.port = stream.find(r"at http://127\.0\.0\.1:(\d+), its admin", "the stream")
            self.table_port = table.find(r"at http://127\.0\.0\.1:(\d+), its stream", "the table")
            # The address is told before the pages are made; the first answer comes after.
            ask(self.port, "/_simulator/state")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def process(self, command, environment=None):
        started = Process(command, environment or {})
        self.running.append(started)
        return started

    def start(self, peer):
        self.running.append(running := Running(peer, self))
        return running

    def close(self):
        for running in reversed(self.running):
            running.end()
        self.running = []

    def state(self):
        return json.loads(ask(self.port, "/_simulator/state")[1])["calls"]

    def calls(self):
        """What was asked of the stream so far."""
        state = self.state()
        return {name: state[name] for name in CALLS}

    def calls_by_shard(self):
        return self.state()["GetRecords_by_shard"]

    def put(self):
        """Changes of so many items that every shard gets some."""
        changes = [{"kind": "MODIFY", "keys": {"PK": {"S": f"{n}-{random.random()}"}, "SK": {"S": "1"}}} for n in range(40)]
        status, answer = ask(self.port, "/_simulator/put", json.dumps(changes))
        if status != 200:
            raise Failed(f"the simulator takes no changes: {answer}")
