"""Runs handle_stream for `HANDLER=exec:python3 …/serve.py`: an event a line on stdin, an answer a
line on stdout, the log on stderr. An exception ends it, and the batch comes again."""

import json
import logging
import sys
import time

from handler import handle_stream

# Seconds for an event; less than the consumer's HANDLER_TIMEOUT, 60s unless told otherwise.
LIMIT = float(sys.argv[1]) if sys.argv[1:] else 50.0


class Context:
    """The one thing of Lambda's context that the handler asks for."""

    def __init__(self):
        self.ends = time.monotonic() + LIMIT

    def get_remaining_time_in_millis(self):
        return (self.ends - time.monotonic()) * 1000


logging.basicConfig(stream=sys.stderr, format="%(message)s")
for line in sys.stdin:
    print(json.dumps(handle_stream(json.loads(line), Context())), flush=True)
