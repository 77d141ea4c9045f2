"""What QEMU, its guest agent and an NBD server answer; and files that an owner writes."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from headstart import errors
from headstart.extents import Extent
from headstart.guest import shells
from headstart.host import config
from headstart.hypervisor.qemu import graph, inventory
from headstart.hypervisor.qemu.graph import Devices
from headstart.simulation import load, trace
from headstart.units import MIB
from headstart.wire import nbd, qga
from headstart.wire.qga import Qga
from headstart.wire.qmp import CommandFailed, Qmp

NUMBER = 4711


class _Answers:
    """A socket whose other end has said everything and hung up."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def recv(self, count: int) -> bytes:
        found, self._said = self._said[:count], self._said[count:]
        return found

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: None


def guest_agent(data: bytes) -> None:
    said = qga.SENTINEL + json.dumps({"return": NUMBER}).encode() + b"\n" + data
    fake = SimpleNamespace(socket=lambda *_: _Answers(said), AF_UNIX=socket.AF_UNIX, SOCK_STREAM=socket.SOCK_STREAM)
    with mock.patch.object(qga, "socket", fake), mock.patch.object(secrets, "randbelow", return_value=NUMBER):
        with contextlib.suppress(errors.Unreachable), Qga(Path("qga"), sync_seconds=1.0) as agent:
            bool(agent.execute("guest-fsfreeze-freeze", 1.0))
        with (
            contextlib.suppress(errors.Unreachable, errors.Unsupported),
            mock.patch.object(time, "sleep"),
            Qga(Path("qga"), sync_seconds=1.0) as agent,
        ):
            assert shells.QgaShell(agent).run("true").shown.isprintable()


class _Monitor:
    """Answers in the order of a list."""

    mark = 0
    peer_pid = None

    def __init__(self, answers: list[Any]) -> None:
        self._answers = itertools.chain(answers, itertools.repeat(None, 100))

    def events_since(self, mark: int) -> list[Any]:
        return []

    def execute(self, command: str, **arguments: Any) -> Any:
        answer = next(self._answers, None)
        if answer is None:
            raise CommandFailed(command, "GenericError", "no more")
        return answer


def monitor(data: bytes) -> None:
    """A JSON list: the answers to ``query-named-block-nodes``, ``query-block``, the graph, then properties."""
    try:
        answers = json.loads(data)
    except (ValueError, RecursionError):
        return
    for look in (_graph, _inventory):
        with contextlib.suppress(errors.HeadstartError):
            look(cast("Qmp", _Monitor(answers if isinstance(answers, list) else [answers])))


def _graph(qmp: Qmp) -> None:
    found = graph.look(qmp)
    for name in found.nodes:
        with contextlib.suppress(errors.Unsupported):
            found.below_filters(name)
            found.filters(name)
            list(found.chain(name))
        found.file_node(name)


def _inventory(qmp: Qmp) -> None:
    devices = Devices(qmp)
    seen = inventory.look(qmp, devices, ())
    inventory.inventory(qmp, seen)


class _Server:
    """Tells states in pieces of the lengths that it is given, at once."""

    def __init__(self, entries: list[int]) -> None:
        self._entries = iter(entries)

    def aio_block_status(
        self, length: int, start: int, receive: Callable[..., int], answered: Callable[..., int]
    ) -> None:
        told = list(itertools.islice(self._entries, 6))
        receive(nbd.ALLOCATION, start, told[: len(told) // 2 * 2], None)
        answered(ctypes.c_int(0))


def block_status(data: bytes) -> None:
    """Numbers of 32 bits: lengths and states by turns."""
    client = nbd.Client.__new__(nbd.Client)
    client._handle = _Server([int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data) // 4 * 4, 4)])
    client._export = nbd.Export(Path("socket"), "disk")
    client._failure = errors.Unreachable
    wide = Extent(512, 64 * MIB + 4096)
    try:
        states = list(client.status(nbd.ALLOCATION, [wide]))
    except errors.Unreachable:
        return
    assert _covers(states, wide)
    assert _covers(nbd._whole_pieces(states, wide), wide)


def _covers(states: Any, wide: Extent) -> bool:
    position = wide.start
    for extent, _ in states:
        assert extent.start == position
        position = extent.end
    return position == wide.end


# -- files

NOW = datetime(2026, 3, 2, tzinfo=UTC)
#: In memory where there is such a place: it is written anew each time.
_FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path("/tmp")


@contextlib.contextmanager
def _file(data: bytes, suffix: str) -> Iterator[Path]:
    path = _FOLDER / f"headstart-fuzz-{os.getpid()}{suffix}"
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


def configuration(data: bytes) -> None:
    with _file(data, ".toml") as path, contextlib.suppress(errors.Usage):
        config.load(path, NOW)


def figures(data: bytes) -> None:
    with _file(data, ".csv") as path:
        with contextlib.suppress(errors.Usage):
            trace.read(path)
        with contextlib.suppress(errors.Usage):
            load.read(path, 3600.0)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "qga": guest_agent,
    "qmp": monitor,
    "block-status": block_status,
    "toml": configuration,
    "trace": figures,
}
