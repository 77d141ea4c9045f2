"""What a host takes of the orders that a server offers, and what becomes of them where its state fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.host.control import Tell
from headstart.host.errands import MOST, MOST_TOLD, Errands
from headstart.host.remote import Offered
from headstart.state.journal import Journal
from headstart.state.outbox import Outbox
from tests.kit.waiting import wait_until


class Host:
    """Its backups go on until somebody cancels one."""

    def __init__(self, journal: Journal) -> None:
        self.house = mock.Mock(journal=journal)
        self.asked: list[str] = []
        self.cancelled = threading.Event()

    def handle(self, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        self.asked.append(request["do"])
        if request["do"] == "backup":
            self.cancelled.wait(10)
            raise errors.Interrupted("cancelled")
        if request["do"] == "cancel":
            self.cancelled.set()
        return {}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Journal.open(tmp_path) as journal:
        found = Host(journal)
        yield found
        found.cancelled.set()


def offered(kind: str, number: int = 0) -> Offered:
    return Offered(f"{kind}-{number}", kind, "web", {})


def agreed(hand: Errands) -> dict[str, str]:
    return {order: each["state"] for order, each in hand.told().items()}


def test_what_ends_the_others_does_not_wait_for_them(host: Host) -> None:
    hand = Errands(host, lambda: None)  # type: ignore[arg-type]
    assert hand.take([offered("backup", number) for number in range(MOST + 2)])
    hand.heard(agreed(hand))
    wait_until(lambda: len(host.asked) == MOST)
    late = [offered("backup", MOST), offered("cancel"), offered("pause"), offered("restore")]
    assert hand.take(late) and not hand.take(late)
    assert {order for order, state in agreed(hand).items() if not order.startswith("backup")} == {"cancel-0", "pause-0"}
    hand.heard(agreed(hand))
    wait_until(lambda: list(agreed(hand).values()).count("failed") == MOST)
    assert hand.take(late), "there is room again"
    # Until the server has heard of them it is offered no more than one pulse can tell of.
    assert hand.take([offered("pause", number) for number in range(1, 200)]) and len(hand.told()) == MOST_TOLD
    hand.heard(dict.fromkeys(hand.told(), "failed"))
    assert hand.take([offered("pause", 199)])


def test_what_cannot_be_noted_is_neither_taken_nor_begun_until_it_can(host: Host) -> None:
    """Nothing would begin it later."""
    hand = Errands(host, lambda: None)  # type: ignore[arg-type]
    full = mock.patch.object(Outbox, "put_orders", side_effect=errors.NoSpace("full"))
    with full, pytest.raises(errors.NoSpace):
        hand.take([offered("pause")])
    assert not hand.told()
    assert hand.take([offered("pause")])
    with full, pytest.raises(errors.NoSpace):
        hand.heard(agreed(hand))
    assert not host.asked
    hand.heard(agreed(hand))
    wait_until(lambda: agreed(hand) == {"pause-0": "done"})
    with full, pytest.raises(errors.NoSpace):
        hand.heard(agreed(hand))
    assert agreed(hand) == {"pause-0": "done"}
    assert host.asked == ["pause"]
