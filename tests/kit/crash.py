"""Runs a program that kills itself at a named place, as ``kill -9`` from outside would at that moment.

    python -m tests.kit.crash --before headstart.state.journal:Journal._commit:3 -- backup vm
    python -m tests.kit.crash --count headstart.state.journal:Journal._commit --counts FILE -- backup vm

    python -m tests.kit.crash --cut headstart.wire.qmp:Qmp._execute:3 -- backup vm

``--cut`` closes all sockets of the process there instead, as far as anybody outside can see.

A place is ``module:qualified.name``; ``:3`` is its third call. The function is replaced in its module or class: names
that another module has imported before from there keep the original.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import importlib
import inspect
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

MAIN = "headstart.cli.main:main"


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nothing survives SIGKILL")


def cut() -> None:
    """What is connected is so no longer; the process goes on."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as connected:
            connected.getpeername()
            connected.shutdown(socket.SHUT_RDWR)


class Place:
    """One function, with a count of its calls and what to do at one of them."""

    def __init__(self, name: str, *, die_before: int = 0, die_after: int = 0, cut_before: int = 0) -> None:
        self.calls = 0
        self._before = die_before
        self._after = die_after
        self._cut = cut_before
        module, _, path = name.partition(":")
        *owners, last = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        original = inspect.getattr_static(owner, last)
        if isinstance(original, (staticmethod, classmethod)):
            setattr(owner, last, type(original)(self._wrap(original.__func__)))
        else:
            setattr(owner, last, self._wrap(original))

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*arguments: Any, **options: Any) -> Any:
                call = self._enter()
                result = await function(*arguments, **options)
                self._leave(call)
                return result

            return awaited

        @functools.wraps(function)
        def called(*arguments: Any, **options: Any) -> Any:
            call = self._enter()
            result = function(*arguments, **options)
            self._leave(call)
            return result

        return called

    def _enter(self) -> int:
        self.calls += 1
        if self.calls == self._before:
            die()
        if self.calls == self._cut:
            cut()
        return self.calls

    def _leave(self, call: int) -> None:
        if call == self._after:
            die()


def write_counts(places: dict[str, Place], target: Path) -> None:
    target.write_text(json.dumps({name: place.calls for name, place in places.items()}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--main", default=MAIN)
    parser.add_argument("--before", metavar="PLACE:CALL")
    parser.add_argument("--after", metavar="PLACE:CALL")
    parser.add_argument("--cut", metavar="PLACE:CALL")
    parser.add_argument("--count", metavar="PLACE", action="append", default=[])
    parser.add_argument("--counts", metavar="FILE", type=Path)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    module, _, function = options.main.partition(":")
    program = importlib.import_module(module)
    if options.before:
        name, _, call = options.before.rpartition(":")
        Place(name, die_before=int(call))
    if options.cut:
        name, _, call = options.cut.rpartition(":")
        Place(name, cut_before=int(call))
    if options.after:
        name, _, call = options.after.rpartition(":")
        Place(name, die_after=int(call))
    if options.counts:
        atexit.register(write_counts, {name: Place(name) for name in options.count}, options.counts)
    sys.argv = [module, *options.arguments]
    sys.exit(getattr(program, function)())


if __name__ == "__main__":
    main()
