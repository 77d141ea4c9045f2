"""The daemon forgets by the rules of its policies, and collects garbage once a day."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.host import caretaker, requests
from headstart.host.policy import Retention
from headstart.repository import collect, forget, lease
from headstart.repository.collect import Order
from headstart.repository.repo import Repository
from tests.host import home as homes
from tests.host.home import NIGHTLY, Home, with_policy
from tests.kit.waiting import wait_until

PLAIN = {"vm": "web", "options": requests.options_json(Options())}
KEEPING = replace(NIGHTLY, retention=Retention(keep_last=2))


@pytest.fixture
def home() -> Iterator[Home]:
    with homes.home() as made, mock.patch.multiple(caretaker, LOOK_SECONDS=0.02, AGAIN_SECONDS=0.1):
        yield made


def back_up(home: Home, count: int) -> None:
    for _ in range(count):
        home.now += 60
        home.ask("backup", **PLAIN)


def test_forgets_after_each_backup_what_its_policy_does_not_keep(home: Home) -> None:
    home.add("web")
    with_policy(home, KEEPING)
    with home.serving():
        back_up(home, 4)
        newest = home.journal.point("web")
        wait_until(lambda: len(home.snapshots()) == 2)
        assert newest is not None and home.snapshots()[-1].id == newest.snapshot
        back_up(home, 1)
        wait_until(lambda: len(home.snapshots()) == 2 and home.snapshots()[-1].id != newest.snapshot)


def test_without_rules_nothing_is_deleted(home: Home) -> None:
    home.add("web")
    with home.serving(), mock.patch.object(home.store, "delete", side_effect=home.store.delete) as deleted:
        back_up(home, 4)
        threading.Event().wait(0.3)
    assert len(home.snapshots()) == 4
    assert not [call for call in deleted.call_args_list if not call.args[0].startswith("drafts/")]


def test_rules_that_change_hold_at_once(home: Home) -> None:
    home.add("web")
    with home.serving() as served:
        back_up(home, 4)
        with_policy(home, KEEPING)
        served.reload()
        wait_until(lambda: len(home.snapshots()) == 2)


def test_collects_once_a_day(home: Home) -> None:
    home.add("web")
    with_policy(home, KEEPING)
    collected: list[Order] = []

    def counted(repo: Repository, order: Order) -> collect.Report:
        collected.append(order)
        return right(repo, order)

    right = collect.collect
    early = mock.patch.object(caretaker, "FIRST_SECONDS", 0.1)
    with mock.patch.object(collect, "collect", counted), early, home.serving():
        back_up(home, 1)
        wait_until(lambda: collected)
        threading.Event().wait(0.3)
    assert [each.quarantine for each in collected] == [collect.QUARANTINE]


def test_what_fails_is_tried_again_and_harms_no_backup(home: Home) -> None:
    home.add("web")
    with_policy(home, KEEPING)
    failing = [errors.StoreFailed("the store does not answer"), lease.Held("somebody else does"), RuntimeError("a bug")]

    def fails(repo: Repository, order: forget.Order) -> forget.Report:
        told.append(served.caretaker.failing)
        if failing:
            raise failing.pop()
        return right(repo, order)

    right, told = forget.forget, list[bool]()
    with mock.patch.object(forget, "forget", fails), home.serving() as served:
        back_up(home, 4)
        wait_until(lambda: len(home.snapshots()) == 2)
        wait_until(lambda: not served.caretaker.failing)
    assert told[:4] == [False, True, True, True]
