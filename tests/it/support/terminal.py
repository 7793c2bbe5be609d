"""A terminal of 80 by 24 around a program: terminal.py PROGRAM ARGUMENTS...

What comes in goes to the program as keys, what the program draws comes out as it is. The program's
number is the first line on stderr; when it has ended, the last says whether the terminal is as it
was before, and the exit code is the program's (128 and the signal, where that ended it)."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios

master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(slave)


def own_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


program = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
print(program.pid, file=sys.stderr, flush=True)
sources = [master, 0]
while True:
    ready, _, _ = select.select(sources, [], [], 0.05)
    if master in ready:
        os.write(1, os.read(master, 65536))
    elif 0 in ready:
        keys = os.read(0, 4096)
        if keys:
            os.write(master, keys)
        else:
            # The test is over, or its process has ended.
            program.send_signal(signal.SIGKILL)
            sources.remove(0)
    elif program.poll() is not None:
        break
same = termios.tcgetattr(slave) == before
print("as before" if same else "changed", file=sys.stderr, flush=True)
code = program.returncode
sys.exit(code if code >= 0 else 128 - code)
