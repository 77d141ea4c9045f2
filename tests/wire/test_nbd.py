"""The NBD client against real servers: qemu-nbd and nbdkit."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart import errors, extents
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece
from headstart.units import GIB, KIB, MIB, TIB
from headstart.wire import nbd
from tests.kit.nbd import sparse

#: A server may have to wait for its turn on a busy machine.
START_SECONDS = 60


@contextlib.contextmanager
def serving(*command: str, socket: str) -> Iterator[tuple[nbd.Export, subprocess.Popen[bytes]]]:
    """A server that was given ``{socket}`` among its arguments."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        path = Path(folder, "nbd")
        process = subprocess.Popen([word.replace(socket, str(path)) for word in command])
        try:
            wait_until_listening(path, process)
            yield nbd.Export(path, ""), process
        finally:
            process.kill()
            process.wait()


def wait_until_listening(path: Path, process: subprocess.Popen[bytes]) -> None:
    """The name of a socket is there before anybody can connect."""
    deadline = time.monotonic() + START_SECONDS
    while not is_listening(path):
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{process.args!r} does not listen"
        time.sleep(0.01)


def is_listening(path: Path) -> bool:
    """Without connecting: some servers count their clients."""
    listening = 0x10000  # __SO_ACCEPTCON, linux/net.h
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(int(row[3], 16) & listening for row in rows if row[-1] == str(path))


def qemu_nbd(image: Path) -> contextlib.AbstractContextManager[tuple[nbd.Export, subprocess.Popen[bytes]]]:
    return serving("qemu-nbd", "-f", "raw", "-t", "-k", "SOCKET", str(image), socket="SOCKET")


def nbdkit(*words: str) -> contextlib.AbstractContextManager[tuple[nbd.Export, subprocess.Popen[bytes]]]:
    return serving("nbdkit", "-f", "-U", "SOCKET", *words, socket="SOCKET")


def test_a_server_is_waited_for_until_it_listens() -> None:
    """Its socket has a name, and nobody listens yet, for some time."""
    slow = """
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
time.sleep(0.3)
server.listen()
time.sleep(1000)
"""
    with (
        serving(sys.executable, "-c", slow, "SOCKET", socket="SOCKET") as (export, _),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(export.socket))


def test_a_server_that_does_not_come_up_is_told() -> None:
    with pytest.raises(AssertionError, match="ended with 1"), serving("false", socket="SOCKET"):
        pass


def collect(pieces: Iterator[Piece]) -> dict[Extent, bytes | None]:
    found: dict[Extent, bytes | None] = {}
    for piece in pieces:
        found[piece.extent] = None if piece.data is None else bytes(piece.data)
        piece.release()
    return found


def assert_read(found: dict[Extent, bytes | None], wanted: list[Extent], content: bytes) -> None:
    assert extents.merge(found) == extents.merge(wanted)
    assert sum(extent.length for extent in found) == sum(extent.length for extent in wanted)
    for extent, data in found.items():
        assert extent.start // PIECE_SIZE == (extent.end - 1) // PIECE_SIZE
        expected = content[extent.start : extent.end]
        assert (bytes(extent.length) if data is None else data) == expected


def test_holes_are_neither_read_nor_forgotten(tmp_path: Path) -> None:
    image = tmp_path / "image"
    written = [Extent(3 * MIB + 4 * KIB, 64 * KIB), Extent(20 * MIB, 2 * MIB), Extent(33 * MIB - 512, 512)]
    content = sparse(image, 33 * MIB, written)
    with qemu_nbd(image) as (export, _), nbd.Client(export) as client:
        allocated = list(client.allocated())
        for start in range(0, len(content), 4 * KIB):
            inside = any(extent.start <= start < extent.end for extent in allocated)
            assert inside or not any(content[start : start + 4 * KIB])
        assert sum(extent.length for extent in allocated) < 4 * MIB
        wanted = [Extent(0, client.size)]
        found = collect(client.read(wanted))
        assert_read(found, wanted, content)
        assert sum(extent.length for extent, data in found.items() if data is not None) <= 6 * MIB


@pytest.mark.parametrize("size", [1, 511, 3 * MIB + 777, 5 * MIB + 512])
def test_exports_of_odd_sizes_are_read_whole(tmp_path: Path, size: int) -> None:
    image = tmp_path / "image"
    content = sparse(image, size, [Extent(0, size)])
    with nbdkit("file", str(image)) as (export, _), nbd.Client(export) as client:
        assert client.size == size
        wanted = [Extent(0, size)]
        assert_read(collect(client.read(wanted)), wanted, content)


def test_any_extents_can_be_asked_for(tmp_path: Path) -> None:
    image, source = tmp_path / "image", random.Random(5)
    content = sparse(image, 24 * MIB + 999, [Extent(n * 3 * MIB, MIB + 7) for n in range(8)])
    with nbdkit("file", str(image)) as (export, _), nbd.Client(export) as client:
        assert_read(collect(client.read([])), [], content)
        for _ in range(20):
            borders = sorted(source.sample(range(len(content)), 2 * source.randrange(1, 30)))
            wanted = [Extent(start, end - start) for start, end in zip(borders[::2], borders[1::2], strict=True)]
            assert_read(collect(client.read(wanted)), wanted, content)


def test_a_disk_of_many_terabytes_is_looked_at_in_time() -> None:
    with nbdkit("memory", "6T") as (export, _), nbd.Client(export) as client:
        assert client.size == 6 * TIB
        client.write(5 * TIB, b"here")
        began = time.monotonic()
        allocated = list(client.allocated())
        assert time.monotonic() - began < 20
        assert len(allocated) == 1
        assert allocated[0].start <= 5 * TIB < allocated[0].end


def test_content_stays_until_it_is_released(tmp_path: Path) -> None:
    """A consumer in another thread holds as much as it may, for longer than others are read."""
    image = tmp_path / "image"
    content = sparse(image, 60 * MIB, [Extent(0, 60 * MIB)])
    held: queue.Queue[Piece | None] = queue.Queue()
    wrong: list[Extent] = []

    def consume() -> None:
        backlog: list[Piece] = []
        while (piece := held.get()) is not None:
            backlog.append(piece)
            if len(backlog) == nbd.DEPTH - 1:
                time.sleep(0.02)
                check(backlog.pop(0))
        for piece in backlog:
            check(piece)

    def check(piece: Piece) -> None:
        if piece.data is None or bytes(piece.data) != content[piece.extent.start : piece.extent.end]:
            wrong.append(piece.extent)
        piece.release()

    consumer = threading.Thread(target=consume)
    consumer.start()
    with nbdkit("file", str(image)) as (export, _), nbd.Client(export) as client:
        for piece in client.read([Extent(0, client.size)]):
            held.put(piece)
        held.put(None)
        consumer.join(30)
    assert not consumer.is_alive()
    assert wrong == []


def test_a_reader_that_is_left_early_can_be_used_again(tmp_path: Path) -> None:
    image = tmp_path / "image"
    content = sparse(image, 30 * MIB, [Extent(0, 30 * MIB)])
    with nbdkit("file", str(image)) as (export, _), nbd.Client(export) as client:
        for first in range(20):
            for piece in client.read([Extent(first, client.size - first)]):
                piece.release()
                break
        wanted = [Extent(0, client.size)]
        assert_read(collect(client.read(wanted)), wanted, content)


def test_failed_reads_are_told_and_cost_no_buffer() -> None:
    """The server fails beyond 16 MiB."""
    fail = "pread=if [ $4 -ge 16777216 ]; then echo EINVAL no >&2; exit 1; fi; head -c $3 /dev/zero | tr '\\0' x"
    with (
        nbdkit("eval", "get_size=echo 32M", fail) as (export, _),
        nbd.Client(export, failure=errors.PointLost) as client,
    ):
        for number in range(3 * nbd.DEPTH):
            with pytest.raises(errors.PointLost, match="read"):
                collect(client.read([Extent(number, 4 * KIB), Extent(17 * MIB, 3 * MIB)]))
        assert collect(client.read([Extent(0, 4 * KIB)])) == {Extent(0, 4 * KIB): b"x" * 4 * KIB}


def test_a_server_that_dies_is_noticed(tmp_path: Path) -> None:
    image = tmp_path / "image"
    sparse(image, 64 * MIB, [Extent(0, 64 * MIB)])
    with (
        nbdkit("--filter=delay", "file", str(image), "rdelay=50ms") as (export, process),
        nbd.Client(export, failure=errors.PointLost) as client,
    ):
        began = time.monotonic()
        with pytest.raises(errors.PointLost):
            for piece in client.read([Extent(0, client.size)]):
                piece.release()
                process.kill()
        for _ in range(3 * nbd.DEPTH):
            with pytest.raises(errors.PointLost):
                collect(client.read([Extent(0, MIB)]))
        with pytest.raises(errors.PointLost):
            list(client.allocated())
        assert time.monotonic() - began < 10


DELAYED = ("--filter=delay", "memory", "1M")


@pytest.mark.parametrize(
    ("words", "ask"),
    [
        ([*DELAYED, "rdelay=30"], lambda client: collect(client.read([Extent(0, 64 * KIB)]))),
        ([*DELAYED, "delay-extents=30"], lambda client: list(client.allocated())),
        ([*DELAYED, "delay-write=30"], lambda client: client.write(0, b"x" * MIB)),
        ([*DELAYED, "delay-zero=30"], lambda client: client.zero([Extent(0, MIB)])),
        (["eval", "get_size=echo 1M", "can_write=exit 0", "can_flush=exit 0", "flush=sleep 5"], nbd.Client.flush),
    ],
    ids=["read", "block status", "write", "zero", "flush"],
)
def test_a_server_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, words: list[str], ask: Callable[[nbd.Client], object]
) -> None:
    """Once: whatever is asked for afterwards fails at once, and leaving waits for nothing."""
    monkeypatch.setattr(nbd, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(nbd, "STORE_SECONDS", 0.5)
    with nbdkit(*words) as (export, _):
        with nbd.Client(export, failure=errors.PointLost) as client:
            began = time.monotonic()
            with pytest.raises(errors.PointLost, match=r"has not answered for 0\.5 s"):
                ask(client)
            for _ in range(2 * nbd.DEPTH):
                with pytest.raises(errors.PointLost, match=r"has not answered for 0\.5 s"):
                    ask(client)
            with pytest.raises(errors.PointLost, match=r"has not answered for 0\.5 s"):
                collect(client.read([Extent(0, 4 * KIB)]))
        assert time.monotonic() - began < 2.5


def test_what_is_stored_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that changes over, or has to write zeroes one by one; a wide range is told of piece by piece."""
    monkeypatch.setattr(nbd, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(nbd, "STORE_SECONDS", 5)
    with nbdkit(*DELAYED, "delay-write=1", "delay-zero=1") as (export, _), nbd.Client(export) as client:
        client.write(0, b"x" * MIB)
        client.zero([Extent(0, MIB)])
        assert collect(client.read([Extent(0, 4 * KIB)])) == {Extent(0, 4 * KIB): bytes(4 * KIB)}
    lengths = "zero=[ $3 -le 67108864 ] || { echo 'EIO too long' >&2; exit 1; }"
    sized = ("eval", "get_size=echo 1G", "can_write=exit 0", "can_zero=exit 0", lengths)
    with nbdkit(*sized) as (export, _), nbd.Client(export) as client:
        client.zero([Extent(0, GIB)])


def test_a_server_that_takes_nothing_any_longer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is stopped, with more written to it than its socket holds, and lets go of nothing either."""
    monkeypatch.setattr(nbd, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(nbd, "STORE_SECONDS", 0.5)
    with nbdkit("memory", "16M") as (export, process):
        with nbd.Client(export) as client:
            process.send_signal(signal.SIGSTOP)
            began, before = time.monotonic(), descriptors()
            with pytest.raises(errors.Unreachable, match="has not answered"):
                client.write(0, bytes(4 * MIB))
            assert descriptors() < before
        assert time.monotonic() - began < 2.5


def test_a_server_that_does_not_let_go_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd, "SILENCE_SECONDS", 0.5)
    with nbdkit(*DELAYED, "delay-close=30") as (export, _):
        with nbd.Client(export) as client:
            began = time.monotonic()
        assert time.monotonic() - began < 2.5
        assert client.size == MIB


def test_what_is_left_with_requests_under_way_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has closed the iterator when the client is left."""
    monkeypatch.setattr(nbd, "SILENCE_SECONDS", 0.5)
    slow = "pread=if [ $4 -ge 65536 ]; then sleep 4; fi; head -c $3 /dev/zero"
    with nbdkit("eval", "get_size=echo 1M", slow) as (export, _):
        with nbd.Client(export) as client:
            pieces = client.read([Extent(0, 4 * KIB), Extent(64 * KIB, 4 * KIB)])
            next(pieces).release()
            began = time.monotonic()
        assert time.monotonic() - began < 2
        with pytest.raises(errors.Unreachable, match=r"NBD read .*failed"):
            next(pieces)


def test_who_accepts_and_says_nothing_is_unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nbd, "SILENCE_SECONDS", 0.5)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "silent"))
        server.listen()
        near, far = socket.socketpair()
        ways: list[nbd.Way] = [nbd.Export(tmp_path / "silent", ""), nbd.Connected(near.detach(), "a disk")]
        for way in ways:
            began = time.monotonic()
            with pytest.raises(errors.Unreachable, match=r"has not answered for 0\.5 s"):
                nbd.Client(way)
            assert time.monotonic() - began < 2.5
        # It was hung up, though the one that failed may still be remembered.
        far.settimeout(5)
        assert far.recv(1) == b""
        far.close()


def test_what_cannot_be_opened_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable, match="cannot be opened"):
        nbd.Client(nbd.Export(tmp_path / "missing", "disk"))
    with nbdkit("memory", "1M") as (export, _):
        with pytest.raises(errors.Unreachable, match="cannot be opened"):
            nbd.Client(nbd.Export(export.socket, "x" * 5000))
        with pytest.raises(errors.Unreachable, match="does not offer qemu:dirty-bitmap:x"):
            nbd.Client(export, ["qemu:dirty-bitmap:x"])
        export = nbd.Export(export.socket, "")
        with nbd.Client(export, []) as client:
            assert collect(client.read([Extent(0, 512)])) == {Extent(0, 512): bytes(512)}


def test_what_is_written_is_what_the_image_holds(tmp_path: Path) -> None:
    image = tmp_path / "image"
    content = bytearray(sparse(image, 16 * MIB, [Extent(0, 16 * MIB)]))
    long = random.Random(6).randbytes(3 * MIB + 5)
    ranges = [Extent(n * 64 * KIB, 4 * KIB) for n in range(3 * nbd.CONTROL_DEPTH)]
    with nbdkit("file", str(image)) as (export, _), nbd.Client(export) as client:
        client.zero(ranges)
        client.write(15 * MIB, b"end")
        client.write(13 * MIB // 2, long)
        client.write(0, b"")
        client.trim([Extent(14 * MIB, 64 * KIB)])
        client.flush()
    for extent in ranges:
        content[extent.start : extent.end] = bytes(extent.length)
    content[13 * MIB // 2 : 13 * MIB // 2 + len(long)] = long
    content[15 * MIB : 15 * MIB + 3] = b"end"
    content[14 * MIB : 14 * MIB + 64 * KIB] = bytes(64 * KIB)
    assert image.read_bytes() == content


def test_clients_one_after_another_take_no_more_memory(tmp_path: Path) -> None:
    """libnbd keeps what it was once given."""
    sparse(tmp_path / "image", 16 * MIB, [Extent(0, 16 * MIB)])
    with qemu_nbd(tmp_path / "image") as (export, _):
        for number in range(24):
            with nbd.Client(export, contexts=()) as client:
                for piece in client.read([Extent(0, 16 * MIB)]):
                    piece.release()
            if number == 3:
                before = resident()
    assert resident() - before < 4 * nbd.DEPTH * MIB


def test_what_cannot_be_written_is_told_and_takes_no_more_memory(tmp_path: Path) -> None:
    """The server fails beyond 4 MiB."""
    fail = "pwrite=cat >/dev/null; if [ $4 -ge 4194304 ]; then echo ENOSPC no >&2; exit 1; fi"
    with (
        nbdkit("eval", "get_size=echo 8M", "can_write=exit 0", fail) as (export, _),
        nbd.Client(export, failure=errors.TargetRefused) as client,
    ):
        for number in range(24):
            with pytest.raises(errors.TargetRefused, match="No space left"):
                client.write(4 * MIB - number * KIB, bytes([number + 1]) * MIB)
            client.write(number * 64 * KIB, bytes([number + 1]) * 2 * MIB)
            if number == 3:
                before = resident()
    assert resident() - before < 16 * MIB


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    """Bytes (proc(5), /proc/self/statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
