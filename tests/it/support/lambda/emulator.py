"""Stands in for Lambda's Runtime Interface Emulator, whose binary is in no registry: the
documented HTTP of both its sides, with AWS' own runtime client and a function behind it.

    emulator.py SECONDS FOLDER HANDLER    the function's time-out, and where it is: function.handle

Prints its port. Ends, with the runtime, when standard input closes.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT, FOLDER, HANDLER = float(sys.argv[1]), sys.argv[2], sys.argv[3]
busy = threading.Lock()
events, results = queue.Queue(), queue.Queue()
started, resets = threading.Event(), threading.Event()


def reset():
    results.get()
    resets.clear()
    busy.release()


class Emulator(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_GET(self):
        started.set()
        trace, event = events.get()
        deadline = int((time.time() + TIMEOUT) * 1000)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
            "Lambda-Runtime-Deadline-Ms": str(deadline),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:012345678912:function:f",
            "Content-Type": "application/json",
        }
        if trace:
            headers["Lambda-Runtime-Trace-Id"] = trace
        self.answer(200, event, headers.items())

    def do_POST(self):
        body = self.body()
        if self.path.startswith("/2018-06-01/runtime/"):
            results.put(body)
            self.answer(202, b"")
        elif not busy.acquire(blocking=False) and not (resets.is_set() and busy.acquire()):
            # So does the real one: it does not live through a second invocation.
            os._exit(3)
        else:
            self.invoke(body)

    def invoke(self, event):
        # So does the real one, and no other header of an invocation reaches the function.
        events.put((self.headers["X-Amzn-Trace-Id"], event))
        try:
            result = results.get(timeout=TIMEOUT)
        except queue.Empty:
            result = f"Task timed out after {TIMEOUT:.2f} seconds".encode()
            # The next invocation waits until the runtime is there again.
            resets.set()
            threading.Thread(target=reset).start()
        else:
            busy.release()
        self.answer(200, result)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Emulator)
threading.Thread(target=server.serve_forever, daemon=True).start()
runtime = subprocess.Popen(
    [sys.executable, "-m", "awslambdaric", HANDLER],
    cwd=FOLDER,
    env={
        **os.environ,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "NO_PROXY": "127.0.0.1",
    },
    stdout=subprocess.DEVNULL,
)
# Starting Python is no part of the function's time.
started.wait()
print(server.server_port, flush=True)
while os.read(0, 4096):
    pass
runtime.kill()
os._exit(0)
