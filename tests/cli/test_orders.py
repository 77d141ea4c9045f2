"""A command that has a booted VM is asked by another one to move it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.cli import orders
from headstart.cli.orders import Orders
from headstart.host import control
from headstart.restore.booting.moving import Progress

SNAPSHOT = "3f2a91"
HOW = {"network": False, "memory": 1 << 30, "definition": ""}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Orders]:
    with orders.taken(tmp_path, SNAPSHOT, HOW) as taken:
        yield taken


def carry_out(asked: Orders, move: orders.Move) -> threading.Thread:
    """By the one that has the VM, until there was an order that was done."""

    def attend() -> None:
        while not asked.carry_out(move):
            time.sleep(0.01)

    attending = threading.Thread(target=attend, daemon=True)
    attending.start()
    return attending


def test_who_asks_waits_for_as_long_as_it_takes(asked: Orders, tmp_path: Path) -> None:
    """Also where nothing is reported for longer than anybody waits for an answer."""

    def move(directory: Path, report: Progress) -> dict[str, Any]:
        time.sleep(1.0)
        report("system", 1, 2)
        time.sleep(0.2)
        return {"to": str(directory)}

    seen: list[tuple[str, int, int]] = []
    attending = carry_out(asked, move)
    with mock.patch.object(control, "ANSWER_SECONDS", 0.4), mock.patch.object(orders, "TELL_SECONDS", 0.1):
        done = orders.ask(tmp_path, SNAPSHOT, Path("/new"), {"memory": 1 << 30}, lambda *told: seen.append(told))
    attending.join(10)
    assert done == {"to": "/new"}
    assert seen[0] == ("preparing", 0, 0) and ("system", 1, 2) in seen


@pytest.mark.parametrize(
    ("snapshot", "how", "said"),
    [
        ("ffff", {}, "runs from snapshot 3f2a91"),
        (SNAPSHOT, {"memory": 2 << 30, "network": True}, "with another --memory, --network"),
    ],
)
def test_what_is_not_as_it_was_booted_is_refused(
    asked: Orders, tmp_path: Path, snapshot: str, how: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.Usage, match=said):
        orders.ask(tmp_path, snapshot, Path("/new"), how, lambda *told: None)


def test_nobody_waits_for_a_command_that_has_ended(tmp_path: Path) -> None:
    failed: list[errors.HeadstartError] = []

    def ask() -> None:
        try:
            orders.ask(tmp_path, SNAPSHOT, Path("/new"), {}, lambda *told: waiting.set())
        except errors.HeadstartError as error:
            failed.append(error)

    waiting = threading.Event()
    asking = threading.Thread(target=ask, daemon=True)
    with orders.taken(tmp_path, SNAPSHOT, HOW):
        asking.start()
        assert waiting.wait(10)
    asking.join(10)
    assert [str(each) for each in failed] == ["The command that had booted the VM was ended."]
