"""What is said of a rehearsal, with a VM that is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.restore.booting import attendance
from headstart.restore.booting.attendance import HELD, Attendance
from headstart.restore.rehearsing import checks, rehearsal, signs
from headstart.restore.rehearsing.rehearsal import Order, Shown


class Actor:
    """An instance, its disks and its stage in one. ``early`` is raised at its start, ``late`` once its guest runs."""

    def __init__(self, early: Exception | None = None, late: Exception | None = None) -> None:
        #: One each time it is asked; then it runs.
        self.statuses: list[str] = []
        self.early, self.late = early, late
        self.instance = self.served = self
        self.notes: tuple[str, ...] = ()
        self.consoles: tuple[Path, ...] = ()
        self.has_agent = self.has_qga = True

    @contextlib.contextmanager
    def started(self, *_: object) -> Iterator[Actor]:
        if self.early is not None:
            raise self.early
        yield self

    @property
    def status(self) -> str:
        return self.statuses.pop() if self.statuses else "running"

    def wait(self, seconds: float) -> bool:
        if not seconds and self.late is not None:
            raise self.late
        return False

    def resume(self) -> None: ...

    def answers(self) -> bool:
        return False

    def screenshot(self) -> bytes:
        return b""


def rehearsed(actor: Actor, seconds: float = 60.0) -> Shown:
    source: Any = SimpleNamespace()
    with mock.patch.object(rehearsal, "_started", actor.started):
        return rehearsal.rehearse(source, Order(seconds=seconds), Path("/"), lambda: 1.0)


@pytest.mark.parametrize("when", ["early", "late"])
def test_what_this_host_lacks_is_no_proof(when: str) -> None:
    with pytest.raises(errors.Unreachable, match="is away"):
        rehearsed(Actor(**{when: errors.Unreachable("libvirt is away")}))


def test_a_guest_that_was_held_for_long_has_stood_still_also_if_it_was_just_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rehearsal, "STANDSTILL_SECONDS", 2.0)
    actor = Actor()
    actor.statuses = [HELD] * 6
    assert rehearsed(actor).proof.reason.startswith("The guest stands still")
    actor.statuses = [HELD] * 2
    assert rehearsed(actor, 0.01).proof.reason == "No agent answered within 0 s."


def test_a_guest_that_fills_the_scratch_directory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "SPARED", 1 << 60)
    with pytest.raises(errors.NoSpace, match="backups need"):
        rehearsed(Actor())


def test_what_a_guest_writes_on_its_console_is_cut(tmp_path: Path) -> None:
    """It goes on behind that; and nothing but the console is cut."""
    console, other, link = tmp_path / "console", tmp_path / "other", tmp_path / "link"
    other.write_bytes(b"o" * (attendance.CONSOLE_LIMIT + 1))
    link.symlink_to(other)
    actor: Any = Actor()
    with console.open("wb", buffering=0) as writing:
        look = Attendance(actor, actor, (console, link)).look
        writing.write(b"x" * attendance.CONSOLE_LIMIT)
        look()
        assert console.stat().st_size == attendance.CONSOLE_LIMIT
        writing.write(b"x" * 8192)
        look()
        writing.write(b"login:")
        assert signs.console([console, link]) == "login:\n" and console.stat().st_blocks * 512 < 65536
    assert other.stat().st_size > attendance.CONSOLE_LIMIT


def test_a_snapshot_that_is_damaged_has_not_passed() -> None:
    shown = rehearsed(Actor(early=errors.Damaged("3 blocks were lost")))
    assert (shown.proof.passed, shown.proof.reason) == (False, "3 blocks were lost")


@pytest.mark.parametrize("name", ["port:0", "port:65536", "port:" + "9" * 5000, "port:\u0663", "file:x", "files"])
def test_what_is_no_check(name: str) -> None:
    with pytest.raises(errors.Usage, match="is no check"):
        checks.check_name(name)
    assert checks.check_name("port:65535") == "port:65535"
