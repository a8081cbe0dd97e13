"""Python, as from a shell, but run by a process that has imported torch already: ``server.py``.

``python -IS client.py SOCKET PYTHON ARGUMENT...``: the command that this is, which serves the
command's own children as ``sys.executable``, and Python's arguments. The command has this process's
folder, environment, streams and other open files; signals go on to it, and its end is the end here.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress


def inherited() -> list[int]:
    """Return the files that whoever started this left open for it."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the folder itself, which is closed by now
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return sorted({0, 1, 2, *found})


place, python, *arguments = sys.argv[1:]
files = inherited()
request = {
    "python": python,
    "files": files,
    "arguments": arguments,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
}
with socket.socket(socket.AF_UNIX) as line:
    line.connect(place)
    socket.send_fds(line, [b"?"], files)
    line.sendall(json.dumps(request).encode() + b"\n")
    answers = line.makefile()
    command = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(command, number))
    status = answers.readline()
code = os.waitstatus_to_exitcode(int(status)) if status else 70  # the server has died
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
