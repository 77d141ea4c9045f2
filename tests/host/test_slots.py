"""Turns: never more than allowed at a time, who came first goes first, who gives up gives up his place."""

from __future__ import annotations

import threading

import pytest

from headstart.host.slots import Slots
from tests.kit.waiting import wait_until


def nothing() -> None:
    return None


class Worker:
    """Takes a slot, and holds it until it is told to go."""

    def __init__(self, slots: Slots, name: str, order: list[str]) -> None:
        self.go = threading.Event()
        self.has = threading.Event()
        self._slots, self._name, self._order = slots, name, order
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._slots.taking(nothing):
            self._order.append(self._name)
            self.has.set()
            self.go.wait(10)


def test_who_came_first_goes_first() -> None:
    slots, order = Slots(1), list[str]()
    workers = []
    for number, name in enumerate("abcd"):
        workers.append(Worker(slots, name, order))
        come = number + 1
        wait_until(lambda come=come: slots.waiting + slots.taken == come)  # type: ignore[misc]
    for worker in workers:
        assert worker.has.wait(5)
        assert slots.taken == 1
        worker.go.set()
    wait_until(lambda: slots.taken == 0)
    assert order == list("abcd")


def test_more_slots_let_more_in_at_once() -> None:
    slots, order = Slots(1), list[str]()
    workers = [Worker(slots, name, order) for name in "abc"]
    wait_until(lambda: slots.waiting == 2)
    slots.resize(3)
    assert all(worker.has.wait(5) for worker in workers)
    for worker in workers:
        worker.go.set()


def test_who_gives_up_leaves_the_queue() -> None:
    slots, order = Slots(1), list[str]()
    holder = Worker(slots, "holder", order)
    assert holder.has.wait(5)

    def refuse() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), slots.taking(refuse):
        raise AssertionError("it has no slot")
    follower = Worker(slots, "follower", order)
    holder.go.set()
    assert follower.has.wait(5)
    follower.go.set()


def test_a_failure_gives_the_slot_back() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots.taking(nothing):
        _ = 1 / 0
    with slots.taking(nothing):
        assert slots.taken == 1
