"""Runs Python commands for ``client.py``, each in a fork of this process.

What takes seconds to import is imported here, once, when the first command comes; nothing of ours,
and nothing of OpenNMT-py's. A fork does what a fresh Python would, except that those modules are in
memory, that variables which a library reads when it is loaded (``OMP_WAIT_POLICY``) are those of
the server, and that what it starts as ``sys.executable`` is such a fork, too.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NoReturn

SLOW = (
    "torch", "torch._dynamo", "torch.distributed", "torch.utils.data", "lightning_fabric",
    "lightning_fabric.fabric", "hydra.main", "hydra.core.plugins", "hydra._internal.hydra",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "spacy", "pyonmttok",
    "sacrebleu", "flask", "waitress", "torch.utils.tensorboard", "fasttext", "rapidfuzz",
    "configargparse", "ahocorasick",
)  # fmt: skip


def main(place: str) -> None:
    """Serve until standard input ends, as it does when who has started this is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    path = [entry for entry in sys.path if entry != sys.path[0]]
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen()
        print("ready", flush=True)
        watch(door)
        while True:
            line = door.accept()[0]
            warm()
            if not os.fork():  # a process that waits for the command
                door.close()
                serve(line, path)
            line.close()
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that are done; one always watches
                pass


@cache
def warm() -> None:
    """Import what is slow."""
    for name in SLOW:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # no collection in a fork looks at, and so copies, what is here


def watch(door: socket.socket) -> None:
    """End when standard input does: no thread may be here, so that is a process."""
    server = os.getpid()
    if not os.fork():
        door.close()
        sys.stdin.read()
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)
        os._exit(0)


def serve(line: socket.socket, path: list[str]) -> None:
    """Fork the command, and tell the client its number and its end."""
    _, copies, _, _ = socket.recv_fds(line, 1, 100)
    request = json.loads(line.makefile().readline())
    files = request.pop("files")
    command = os.fork()
    if not command:
        for number, copy in zip(files, [fcntl.fcntl(copy, fcntl.F_DUPFD, 500) for copy in copies]):
            os.dup2(copy, number, inheritable=number < 3)
            os.close(copy)
        for number in {line.fileno(), *copies} - set(files):
            os.close(number)
        end(lambda: run(**request, path=path))
    with suppress(OSError):  # the client may be gone
        line.sendall(f"{command}\n".encode())
        ended = os.pidfd_open(command)
        if ended not in select.select([ended, line], [], [])[0]:  # it is: killed, and by no word
            os.kill(command, signal.SIGKILL)
        line.sendall(f"{os.waitpid(command, 0)[1]}\n".encode())
    os._exit(0)


def end(function: Callable[[], None]) -> NoReturn:
    """Call a function and end as Python does, but leave its memory to the system at once."""
    code = 0
    try:
        function()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - Python prints any
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        sys.excepthook(*sys.exc_info())
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def run(
    arguments: list[str], folder: str, environment: dict[str, str], path: list[str], python: str
) -> None:
    """Do what ``python ARGUMENTS`` does, in a folder and an environment."""
    import torch

    sys.executable = python
    while arguments[0] in {"-u", "-B"}:
        arguments.pop(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    before = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = ["", *before, *path]
    from opennmt_sd import _autoload

    _autoload.install()
    if arguments[0] == "-m":
        sys.argv[:] = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv[:] = ["-c", *arguments[2:]]
        exec(arguments[1], vars(sys.modules["__main__"]))
    else:
        sys.argv[:] = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
