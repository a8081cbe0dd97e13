"""Python, as from a shell, but run by a process that has imported torch already: ``server.py``.

``python -IS client.py SOCKET ARGUMENT...``: the arguments are Python's own. The command has this
process's folder, environment and streams; signals go on to it, and its end is the end here.
"""

import json
import os
import signal
import socket
import sys

place, *arguments = sys.argv[1:]
request = {
    "arguments": arguments,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
}
with socket.socket(socket.AF_UNIX) as line:
    line.connect(place)
    socket.send_fds(line, [b"?"], [0, 1, 2])
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
