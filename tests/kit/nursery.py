"""Processes of the product that begin where its modules have been loaded: loading a server takes two seconds of a
processor, a command half a one, and the tests start hundreds.

Each is a process of its own, with its own environment, arguments, files and end, forked from one that has loaded what a
server loads and has done nothing else::

    pytest --- nursery (loads once) -+- keeper --- headstart server ...
                                     +- keeper --- headstart server work ...

A keeper waits for its process and tells how it ended. Begun from nothing, as users do it, are the servers of
``Server(anew=True)`` and ``Server(program=...)``, and whatever ``Server.at_the_machine`` runs.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

_LONGEST = 1 << 20


class Child:
    """As ``subprocess.Popen``, with text on ``stdout``."""

    def __init__(self, told: socket.socket, stdout: IO[str]) -> None:
        self._told = told
        self.stdout = stdout
        data, files, _, _ = socket.recv_fds(told, _LONGEST, 1)
        self.pid = int(data)
        self._handle = files[0]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("headstart", timeout or 0.0)
            self.returncode = int(self._told.recv(_LONGEST))
            self._told.close()
            os.close(self._handle)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[Any]) -> Child:
    """``python -m headstart`` with these arguments."""
    inner, outer = os.pipe()
    try:
        return Child(_begin(arguments, environment, Path.cwd(), outer, stderr.fileno()), os.fdopen(inner))
    finally:
        os.close(outer)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """The same in this folder, to its end. Raises ``TimeoutExpired``; then it was killed."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        child = Child(_begin(arguments, environment, folder, stdout.fileno(), stderr.fileno()), stdout)
        try:
            status = child.wait(timeout)
        finally:
            child.kill()
        for each in (stdout, stderr):
            each.seek(0)
        return subprocess.CompletedProcess(["headstart", *arguments], status, stdout.read(), stderr.read())


def _begin(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, *files: int) -> socket.socket:
    """What tells of it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked = json.dumps([list(arguments), dict(environment), str(folder)]).encode()
    with there:
        socket.send_fds(_nursery(), [asked], [*files, there.fileno()])
    return here


@functools.cache
def _nursery() -> socket.socket:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.nursery", str(there.fileno())],
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=kept,
    )
    there.close()

    def end() -> None:
        here.close()
        process.wait(60)

    atexit.register(end)
    return here


# -- in the nursery


def _serve(asking: socket.socket) -> None:
    """Returns in the process that is to run the program; in the nursery, at its end, it does not return."""
    keepers: set[int] = set()
    while True:
        data, files, _, _ = socket.recv_fds(asking, _LONGEST, 3)
        keepers -= {each for each in keepers if os.waitpid(each, os.WNOHANG)[0]}
        if not data:
            sys.exit()
        keeper = os.fork()
        if keeper:
            keepers.add(keeper)
            for each in files:
                os.close(each)
            continue
        asking.close()
        stdout, stderr, telling = files
        child = os.fork()
        if child == 0:
            _become(json.loads(data), stdout, stderr, telling)
            return
        for each in (stdout, stderr):
            os.close(each)
        _keep(child, socket.socket(fileno=telling))


def _keep(child: int, telling: socket.socket) -> None:
    handle = os.pidfd_open(child)
    socket.send_fds(telling, [str(child).encode()], [handle])
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):
        telling.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(asked: tuple[list[str], dict[str, str], str], stdout: int, stderr: int, telling: int) -> None:
    arguments, environment, folder = asked
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for each in (stdout, stderr, telling):
        os.close(each)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["headstart", *arguments]


def main() -> None:
    # Of a terminal, it goes to all: the servers end, and this when nobody asks any longer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    from headstart.cli import program
    from headstart.server import engines, migrating, serve  # noqa: F401

    for each in ("procrastinate.schema", "psycopg", "sqlalchemy.dialects.postgresql.psycopg"):
        importlib.import_module(each)

    program.parser_of()
    gc.freeze()
    gc.enable()
    assert [thread.name for thread in Path("/proc/self/task").iterdir()] == [str(os.getpid())], "a fork has one thread"
    _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        runpy.run_module("headstart", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        _end(ended.code)
    raise AssertionError("python -m headstart exits")


def _end(code: object) -> NoReturn:
    """As Python ends, but that the modules are not taken apart one by one, each page of memory copied for that."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
