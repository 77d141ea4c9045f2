"""Who holds a lock is told; a holder that is dead holds nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from headstart import errors
from headstart.state import holder
from headstart.state.holder import Holder
from headstart.state.journal import Journal

HOLDING = """
import sys
from pathlib import Path
from headstart.state.journal import Journal
with Journal.open(Path(sys.argv[1])) as journal, journal.lock("web", "backup"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDING, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setattr("headstart.state.journal.LOCK_SECONDS", 0.1)
    with Journal.open(tmp_path) as opened:
        yield opened


def refused(journal: Journal) -> errors.Locked:
    with pytest.raises(errors.Locked) as caught, journal.lock("web", "precopy"):
        pass
    return caught.value


def test_the_second_is_told_who_what_since_when_and_where(journal: Journal, tmp_path: Path) -> None:
    before = time.time()
    with holding(tmp_path) as process:
        found = refused(journal)
    assert f"(process {process.pid}) works on VM 'web' (backup, since 2" in str(found)
    assert f", on host {socket.gethostname()})." in str(found)
    facts = found.facts["holder"]
    assert isinstance(facts, dict) and before <= facts.pop("since") <= time.time()
    assert facts == {"pid": process.pid, "verb": "backup", "host": socket.gethostname()}


def test_a_holder_that_is_killed_lets_go(journal: Journal, tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        process.kill()
        process.wait()
        with journal.lock("web", "precopy"):
            assert json.loads((tmp_path / "web.lock").read_text())["verb"] == "precopy"


def test_a_holder_that_is_stopped_is_told_with_how_it_goes_on(journal: Journal, tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        assert f"is stopped: 'kill -CONT {process.pid}'" in str(refused(journal))
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        with journal.lock("web"):
            pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4711", Holder(4711)),
        ('{"pid": 1, "verb": "run"}', Holder(1, "run")),
        ('{"pid": 1, "since": null}', Holder(1)),
        ("", Holder(0)),
        ('{"pid": 1, "ve', Holder(0)),
        ("[]", Holder(0)),
        ('{"pid": "x"}', Holder(0)),
    ],
)
def test_what_other_releases_and_half_a_write_say(text: str, expected: Holder) -> None:
    assert holder.parse(text) == expected


def test_a_vm_that_is_called_as_the_daemon(journal: Journal, tmp_path: Path) -> None:
    """Its lock is another one."""
    from headstart.host import daemon

    with journal.lock("daemon"):
        assert not (tmp_path / daemon.LOCK).exists()


def test_a_lock_holds_also_where_its_note_cannot_be_written(tmp_path: Path) -> None:
    def refusal(found: Holder) -> errors.Locked:
        return errors.Locked(found.process)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            stack.enter_context(holder.held(tmp_path / "lock", "backup", 0.0, refusal))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with pytest.raises(errors.Locked, match="process unknown"), holder.held(tmp_path / "lock", "", 0.0, refusal):
            pass


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, errors.NoSpace), (errno.EROFS, errors.Usage)])
def test_a_lock_that_cannot_be_made(journal: Journal, number: int, kind: type[errors.HeadstartError]) -> None:
    with (
        mock.patch.object(Path, "open", side_effect=OSError(number, os.strerror(number))),
        pytest.raises(kind, match=rf"web.lock cannot be .*: {os.strerror(number)}\."),
        journal.lock("web", "backup"),
    ):
        pass
