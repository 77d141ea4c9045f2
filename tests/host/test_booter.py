"""A snapshot runs by order until something ends it: one at a time, where the owner wants it. Nothing stays behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.host import booter, requests
from headstart.host.booter import Booter, Ending
from headstart.restore.booting import runplace
from headstart.restore.booting.boot import Wanted
from headstart.restore.serving.serving import Source
from tests.host import home as homes
from tests.host.home import Home
from tests.kit.waiting import wait_until


class Guest:
    """In place of a VM: this is about what ends it. An ``Up`` of ``booter``'s, and its instance."""

    def __init__(self) -> None:
        self.runs = threading.Event()
        self.over = threading.Event()
        self.status = "running"
        self.said = ""
        self.failing: Exception | None = None
        self.wanted: list[Wanted] = []

    @contextlib.contextmanager
    def started(self, source: Source, wanted: Wanted, uri: str) -> Iterator[Any]:
        if self.failing is not None:
            raise self.failing
        self.wanted.append(wanted)
        served = mock.Mock()
        try:
            yield booter._Up(self, served, (), {"screen": "/run/vnc"}, ("a note",), lambda: self.said)
        finally:
            self.runs.clear()

    def resume(self) -> None:
        self.runs.set()

    def wait(self, seconds: float) -> bool:
        return self.over.wait(0.01)


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    with mock.patch.object(booter, "_started", made.started):
        yield made


@pytest.fixture
def home() -> Iterator[Home]:
    with homes.home() as made:
        made.add("web")
        with made.serving():
            made.ask("backup", vm="web", options=requests.options_json(Options()))
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


class Booted:
    """A boot that is under way."""

    def __init__(self, threads: ThreadPoolExecutor, home: Home, hours: float = 1.0) -> None:
        self.ending = Ending()
        self.offered = True
        self.told: list[Mapping[str, Any]] = []
        self.booter = Booter(home.house, lambda: self.offered)
        snapshot = home.snapshots()[-1].id
        run: Callable[..., dict[str, Any]] = self.booter.boot
        self.done: Future[dict[str, Any]] = threads.submit(run, snapshot, hours, self.ending, self.told.append)

    def ended(self) -> str:
        return str(self.done.result(20)["ended"])


def test_what_ends_it(home: Home, guest: Guest, threads: ThreadPoolExecutor) -> None:
    def by_order(booted: Booted) -> None:
        booted.ending.ask("It was stopped by order.")
        booted.ending.ask("Another reason.")

    def by_the_owner(booted: Booted) -> None:
        booted.offered = False

    def by_the_guest(booted: Booted) -> None:
        guest.over.set()

    for end, why in ((by_order, "by order"), (by_the_owner, "does not offer"), (by_the_guest, "powered off")):
        booted = Booted(threads, home)
        wait_until(lambda booted=booted: booted.told)  # type: ignore[misc]
        assert guest.runs.is_set()
        end(booted)
        assert why in booted.ended() and not guest.runs.is_set()
    guest.over.clear()
    assert "time was over" in Booted(threads, home, hours=0.2 / 3600).ended()
    assert not any(wanted.network or wanted.kept for wanted in guest.wanted)


def test_how_it_is_reached_and_how_it_is_are_told(home: Home, guest: Guest, threads: ThreadPoolExecutor) -> None:
    booted = Booted(threads, home)
    wait_until(lambda: booted.told)
    told = booted.told[-1]
    assert told["reach"] == {"screen": "/run/vnc"} and told["until"] == home.now + 3600 and told["notes"] == ["a note"]
    guest.status = "io-error"
    wait_until(lambda: "stands still" in booted.told[-1]["what"])
    booted.ending.ask("enough")
    booted.ended()


def test_a_qemu_that_fails_is_told(home: Home, guest: Guest, threads: ThreadPoolExecutor) -> None:
    guest.said = "it was killed"
    guest.over.set()
    with pytest.raises(errors.Unreachable, match="it was killed"):
        Booted(threads, home).ended()


def test_one_at_a_time(home: Home, guest: Guest, threads: ThreadPoolExecutor) -> None:
    booted = Booted(threads, home)
    wait_until(lambda: booted.told)
    with pytest.raises(errors.Busy, match="one at a time"):
        booted.booter.boot(home.snapshots()[-1].id, 1.0, Ending(), booted.told.append)
    booted.ending.ask("enough")
    booted.ended()
    guest.failing = errors.NoSpace("no memory")
    for _ in range(2):  # one that does not start leaves the place to the next
        with pytest.raises(errors.NoSpace):
            booted.booter.boot(home.snapshots()[-1].id, 1.0, Ending(), booted.told.append)


@pytest.mark.parametrize("hours", [0.0, -1.0, booter.MOST_HOURS + 1, float("nan"), float("inf")])
def test_hours_that_cannot_be(home: Home, hours: float) -> None:
    with pytest.raises(errors.Usage, match="hours at most"):
        Booter(home.house, lambda: True).boot(home.snapshots()[-1].id, hours, Ending(), lambda told: None)


def test_an_owner_who_does_not_offer_it_is_not_asked_twice(home: Home, guest: Guest) -> None:
    with home.serving() as daemon, pytest.raises(errors.Denied, match="'boots'"):
        daemon.boot(home.snapshots()[-1].id, 1.0, Ending(), lambda told: None)


def test_what_a_killed_one_left_is_cleared_away(
    home: Home, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runplace, "folder_of", lambda name, environment: tmp_path / name)
    left = home.house.scratch / "ordered" / "ordered-web"
    rehearsed = home.house.scratch / "rehearsals" / "rehearsal-web"
    for folder in (left, rehearsed):
        folder.mkdir(parents=True)
        (folder / "a.qcow2").write_bytes(b"writes")
    sockets = tmp_path / "ordered-web"
    sockets.mkdir()
    (sockets / "pid").write_text("1")
    with runplace.claimed(sockets):  # it has not quite ended
        Booter(home.house, lambda: True).clear()
    assert left.exists()
    (sockets / "pid").write_text("1")
    with home.serving():
        wait_until(lambda: not left.parent.exists() and not (sockets / "pid").exists())
        wait_until(lambda: not rehearsed.exists())
