"""The daemon rehearses by the schedule of its policies, and notes what was shown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from unittest import mock

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.host import rehearser, requests
from headstart.host.policy import Rehearsal, Schedule
from headstart.repository import proof
from headstart.repository.proof import Evidence, Proof
from headstart.restore.rehearsing import rehearsal
from headstart.restore.rehearsing.rehearsal import Order, Shown
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.serving import Source
from headstart.state import noted
from headstart.state.noted import Noted
from headstart.state.outbox import Outbox, Told
from headstart.state.values import Point
from tests.host import home as homes
from tests.host.home import HOUR, NIGHTLY, Home, with_policy
from tests.kit.waiting import wait_until

PLAIN = {"vm": "web", "options": requests.options_json(Options())}
#: Backups are made by hand here.
YEARLY = replace(NIGHTLY, schedule=Schedule(("*-01-01",), UTC))
WANTED = Rehearsal(Schedule(("*-*-* 12:00",), UTC), Order(Awaited.AGENT, checks=("filesystems",)))


class Stage:
    """In place of real rehearsals: this is about when they are."""

    def __init__(self) -> None:
        self.played: list[tuple[str, Order]] = []
        self.failing: list[Exception] = []

    def rehearse(self, source: Source, order: Order, scratch: Path, clock: Callable[[], float]) -> Shown:
        if self.failing:
            raise self.failing.pop()
        self.played.append((source.manifest.id, order))
        return Shown(Proof(clock(), "host", True, 1.0, "agent"), Evidence())


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    with mock.patch.object(rehearsal, "rehearse", made.rehearse):
        yield made


@pytest.fixture
def home() -> Iterator[Home]:
    with homes.home() as made, mock.patch.multiple(rehearser, LOOK_SECONDS=0.02, AGAIN_SECONDS=0.1):
        yield made


def half_a_day_later(home: Home) -> None:
    wait_until(lambda: Noted(home.journal).rehearsed("web"))  # what came before it was looked at is not made up for
    home.now += 12 * HOUR


def proven(home: Home, snapshot_id: str) -> int:
    with home.vault.another() as repo:
        return len(proof.all_proofs(repo).get(snapshot_id, ()))


def test_the_newest_snapshot_is_rehearsed_once_for_each_moment(home: Home, stage: Stage) -> None:
    home.add("web")
    with_policy(home, replace(YEARLY, rehearsal=WANTED))
    with home.serving():
        for _ in range(2):
            home.now += 60
            home.ask("backup", **PLAIN)
        newest = home.snapshots()[-1].id
        half_a_day_later(home)
        wait_until(lambda: proven(home, newest) == 1)
        home.now += 12 * HOUR  # not yet due again
        home.ask("backup", **PLAIN)
        assert stage.played == [(newest, WANTED.order)]
        home.now += 12 * HOUR
        wait_until(lambda: len(stage.played) == 2)
        assert stage.played[-1][0] == home.snapshots()[-1].id
    told = [each for each in Outbox(home.journal).publications(Told("us"), 99)[0] if "rehearsed" in each]
    assert [each["snapshot"] for each in told] == [each for each, _ in stage.played]
    assert told[0]["rehearsed"]["passed"] and told[0]["vm"] == "web"


def test_a_daemon_that_starts_anew_knows_what_was_proven_and_what_was_missed(home: Home, stage: Stage) -> None:
    home.add("web")
    with_policy(home, replace(YEARLY, rehearsal=WANTED))
    with home.serving():
        home.ask("backup", **PLAIN)
        wait_until(lambda: Noted(home.journal).rehearsed("web"))
    home.now += 13 * HOUR
    assert not stage.played
    with home.serving():
        wait_until(lambda: stage.played)
        wait_until(lambda: proven(home, stage.played[0][0]) == 1)
    rehearsed = home.now
    with home.journal.change() as database:
        noted.forget(database, "web")  # then the proofs tell
    with home.serving():
        home.now += HOUR
        home.ask("backup", **PLAIN)
        wait_until(lambda: Noted(home.journal).rehearsed("web") == rehearsed)
        assert len(stage.played) == 1


def test_what_cannot_be_rehearsed_is_tried_again_and_harms_no_backup(
    home: Home, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    home.add("web")
    with_policy(home, replace(YEARLY, rehearsal=WANTED))
    stage.failing = [errors.NoSpace("no memory"), RuntimeError("a bug")]
    with home.serving():
        home.ask("backup", **PLAIN)
        half_a_day_later(home)
        home.ask("backup", **PLAIN)
        wait_until(lambda: stage.played)
    assert "no memory" in caplog.text


@pytest.mark.parametrize("failure", [errors.Locked("the state is locked"), OSError(5, "a bad disk")], ids=str)
def test_a_state_that_cannot_be_read_once_ends_no_rehearsals(
    home: Home, stage: Stage, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    home.add("web")
    with_policy(home, replace(YEARLY, rehearsal=WANTED))
    failing, point = [failure], home.journal.point

    def read(vm: str) -> Point | None:
        if threading.current_thread().name == "rehearser" and failing:
            raise failing.pop()
        return point(vm)

    with mock.patch.object(home.journal, "point", read), home.serving():
        wait_until(lambda: not failing)
        home.ask("backup", **PLAIN)
        half_a_day_later(home)
        wait_until(lambda: stage.played)
    assert str(failure) in caplog.text


def test_without_a_schedule_nothing_is_rehearsed(home: Home, stage: Stage) -> None:
    home.add("web")
    with home.serving():
        home.ask("backup", **PLAIN)
        home.now += 12 * HOUR
        home.ask("backup", **PLAIN)
    assert stage.played == []
