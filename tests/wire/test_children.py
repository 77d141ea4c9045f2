"""Children that read for a backup: only their parent ends them, and they end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart.extents import Extent
from headstart.volumes import confined, parserprocess
from headstart.wire import children, nbd
from headstart.wire.imageserver import Chain, ImageServer, Layer
from tests.kit.waiting import wait_until
from tests.volumes.metadata import Bytes

SIZE = 1 << 20
CONTENT = os.urandom(SIZE)


def start(folder: Path) -> ImageServer:
    (folder / "disk").write_bytes(CONTENT)
    return ImageServer(folder / "nbd", [Chain("vda", [Layer(str(folder / "disk"), "raw")], ())])


def tell_all(pid: int) -> None:
    for number in children.FOR_ALL:
        os.kill(pid, number)


def test_what_is_meant_for_all_does_not_end_what_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def told(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = popen(*words, **options)
        tell_all(process.pid)  # before it is what it will be
        return process

    monkeypatch.setattr(subprocess, "Popen", told)
    with start(tmp_path) as server:
        tell_all(server._process.pid)
        with nbd.Client(server.exports["vda"]) as client:
            for piece in client.read([Extent(0, SIZE)]):
                assert piece.data is not None and bytes(piece.data) == CONTENT
                piece.release()
        assert server._process.poll() is None
    assert server._process.poll() is not None and not (tmp_path / "nbd").exists()
    # Who started it hears them as before.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(children.FOR_ALL)


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from tests.wire import test_children as t;"
        " server = t.start(pathlib.Path(sys.argv[1])); print(server._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not _runs(pid), 10)


def _runs(pid: int) -> bool:
    """One that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_nor_what_parses() -> None:
    with confined.Parser(parserprocess.SURVEY, {"vda": Bytes(CONTENT)}) as parser:
        parser.start()
        assert parser._process is not None
        before = parser._process
        tell_all(before.pid)
        assert parser.call("survey") == []
        assert parser._process is before
        assert before.stdin is not None
        before.stdin.close()
        assert before.wait(10) == 0
