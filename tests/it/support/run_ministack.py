"""Runs ministack and ends it when standard input closes.

The test binary holds the other end of the pipe: however it ends, killed included, the
pipe closes and no server is left behind.
"""

import os
import sys
import threading


def end_with_the_tests():
    while os.read(0, 4096):
        pass
    os._exit(0)


threading.Thread(target=end_with_the_tests, daemon=True).start()

from ministack.app import main  # noqa: E402  (slow to import; the watch comes first)

sys.argv = ["ministack"]
main()
