"""Devices that are suspended are resumed, whatever becomes of the agent meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headstart import agentd
from tests.kit.waiting import wait_until

FOLDER = Path(agentd.__file__).parents[2]
#: Devices are lines in a file; while the second one is being suspended something happens to the process.
PROGRAM = """
import os, signal, sys, time
from headstart.agentd import dmdevice, points, standstill

def say(what):
    with open(sys.argv[1], "a") as file:
        file.write(what + "\\n")

def suspend(uuid):
    say("suspend " + uuid)
    if uuid in ("b-live", "b-base"):
        {happening}

REAL = standstill._lock_memory
dmdevice.suspend = suspend
dmdevice.resume = lambda uuid, hidden: say("resume " + uuid)
dmdevice.remove = lambda uuid: say("remove " + uuid)

def suspended(uuid):
    text = open(sys.argv[1]).read()
    return text.count("suspend " + uuid) > text.count("resume " + uuid)

dmdevice.suspended = suspended

class Filter:
    def __init__(self, name):
        self.name = name

    def uuid(self, role):
        return self.name + "-" + role

    def device(self, role):
        return "dm-1"

# Who is not root may lock too little.
if os.geteuid():
    standstill._lock_memory = lambda: None
{before}
{body}
say("after")
"""
BOTH = """
with standstill.standstill(["a-live", "b-live"], ["a-base"]):
    say("inside")
"""


def run(path: Path, happening: str, before: str = "", body: str = BOTH) -> tuple[int, list[str]]:
    """How it ended, and what was done until then."""
    path.touch()
    code = PROGRAM.format(happening=happening, before=before, body=body)
    # Without what pytest has loaded: all of its memory is locked.
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('{FOLDER}'); {code}", path],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return ended.returncode, path.read_text().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "done"


def test_all_stand_still_at_once(path: Path) -> None:
    status, done = run(path, "pass")
    assert status == 0
    assert done == ["suspend a-live", "suspend b-live", "inside", "resume b-live", "resume a-live", "after"]


def test_one_that_cannot_be_resumed_is_resumed_by_the_guard(path: Path) -> None:
    fails = "RESUME, ours = dmdevice.resume, os.getpid(); dmdevice.resume = "
    first = "lambda uuid, hidden: 1 / 0 if (uuid, os.getpid()) == ('a-live', ours) else RESUME(uuid, hidden)"
    status, _ = run(path, "pass", fails + first)
    assert status == 1
    wait_until(lambda: "resume a-live" in path.read_text(), 10)
    assert path.read_text().split("inside\n")[1].splitlines() == ["resume b-live", "resume a-live"]


def test_one_that_fails_lets_the_others_go_on(path: Path) -> None:
    status, done = run(path, "raise OSError('no')")
    assert status == 1
    assert done == ["suspend a-live", "suspend b-live", "resume b-live", "resume a-live"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_waits_for_the_end(path: Path, name: str) -> None:
    status, done = run(path, f"os.kill(os.getpid(), signal.{name})", "signal.signal(signal.SIGINT, signal.SIG_DFL)")
    assert status == -getattr(signal, name)
    assert done == ["suspend a-live", "suspend b-live", "inside", "resume b-live", "resume a-live"]


def test_a_guard_resumes_what_one_that_is_killed_has_suspended(path: Path) -> None:
    status, _ = run(path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert status == -signal.SIGKILL
    wait_until(lambda: "resume b-live" in path.read_text(), 10)
    assert path.read_text().splitlines() == ["suspend a-live", "suspend b-live", "resume a-live", "resume b-live"]


def test_without_locked_memory_nothing_is_suspended(path: Path) -> None:
    status, done = run(path, "pass", "standstill._lock_memory, standstill._LOCK_ALL = REAL, 1 << 30")
    assert (status, done) == (1, [])


def test_the_end_of_a_point_in_time_is_guarded_as_well(path: Path) -> None:
    status, _ = run(path, "os.kill(os.getpid(), signal.SIGKILL)", body="points.release([Filter('b'), Filter('a')])")
    assert status == -signal.SIGKILL
    wait_until(lambda: "resume" in path.read_text(), 10)
    assert path.read_text().splitlines() == [
        *("remove a-point", "remove a-cow", "remove b-point", "remove b-cow"),
        *("suspend b-base", "resume b-base"),
    ]


SHORT = "standstill.LIMIT_SECONDS = 0.2"
BOTH_RESUMED = ["resume a-live", "resume b-live"]


def test_one_that_hangs_holds_the_others_for_a_while_only(path: Path) -> None:
    """Its storage is away: it takes no more part in this moment, and there is none."""
    wait = "while 'resume a-live' not in open(sys.argv[1]).read(): time.sleep(0.01)"
    status, done = run(path, wait, SHORT)
    assert status == 1
    # First by the guard.
    assert done[:3] == ["suspend a-live", "suspend b-live", "resume a-live"]
    assert sorted(done[2:4]) == BOTH_RESUMED and "inside" not in done


def test_a_moment_that_was_too_long_is_none(path: Path) -> None:
    hangs = BOTH.replace('say("inside")', "time.sleep(0.2)")
    status, done = run(path, "pass", SHORT, hangs)
    assert status == 1
    assert set(BOTH_RESUMED) <= set(done) and "after" not in done
