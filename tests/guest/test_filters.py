"""What a guest says of its filters is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headstart import errors
from headstart.agentd import messages
from headstart.blocks import Blocks
from headstart.guest import filters
from headstart.guest.agent import Agent
from headstart.guest.channel import Channel, Lost
from headstart.guest.filters import Filter, Filters
from headstart.guest.only.machine import GuestMachine
from headstart.units import BLOCK_SIZE
from tests.guest import hostile
from tests.guest.hostile import Guest

TOLD: dict[str, Any] = {
    "name": "data",
    "missing": "",
    "id": "0123",
    "size": 10 * BLOCK_SIZE + 512,
    "origin": "/dev/vda",
    "device": "dm-2",
    "era": 7,
    "marks": {"a": 3},
    "metadata": [9, 2304],
    "cow": 1 << 24,
}
KNOWN = Filter("data", "0123", 10 * BLOCK_SIZE + 512, "/dev/vda", "dm-2", 7, {"a": 3}, 1 << 24, (9, 2304))


def answering(*answers: dict[str, Any]) -> Callable[[Guest], None]:
    """NOTEs, and the last one as the ANSWER."""

    def play(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        for told in answers[:-1]:
            guest.tell(messages.NOTE, request, **told)
        guest.tell(messages.ANSWER, request, **answers[-1])

    return play


def test_what_is_there() -> None:
    told = {"filters": [TOLD, {"name": "gone", "missing": "it \x1b is not there"}], "grain": BLOCK_SIZE}
    with hostile.playing(answering(told)) as link, Channel(link) as channel:
        seen = Filters(channel).look()
    assert seen.filters == (KNOWN,)
    assert seen.missing == {"gone": "it ? is not there"}
    assert (seen.unreadable, seen.forgets) == ("", False)


def test_a_record_that_nobody_in_the_guest_can_read_is_told_before_anything_is_frozen() -> None:
    told = {"filters": [TOLD], "grain": BLOCK_SIZE, "unreadable": "there is no era_invalidate in the guest"}
    with hostile.playing(answering(told)) as link, Channel(link) as channel:
        machine = GuestMachine(Agent(channel), installation="0" * 8, block_size=BLOCK_SIZE)
        with pytest.raises(errors.NotReady, match="era_invalidate"):
            machine.inventory()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../../etc/passwd"},
        {"name": 3},
        {"size": 0},
        {"size": -1},
        {"size": 1 << 62},
        {"size": "much"},
        {"cow": 1 << 64},
        {"era": 1 << 63},
        {"metadata": [0, 1 << 64]},
        {"era": None},
        {"marks": {"a": "b"}},
        {"marks": [1]},
        {"metadata": [1]},
        {"marks": {str(number): 1 for number in range(5000)}},
    ],
    ids=repr,
)
def test_a_filter_that_cannot_be(wrong: dict[str, Any]) -> None:
    told = {"filters": [TOLD | wrong], "grain": BLOCK_SIZE}
    with hostile.playing(answering(told)) as link, Channel(link) as channel, pytest.raises(Lost, match="nonsense"):
        Filters(channel).look()


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"filters": 3, "grain": BLOCK_SIZE},
        {"filters": [], "grain": 1},
        {"filters": [], "grain": "much"},
        {"filters": [TOLD, TOLD], "grain": BLOCK_SIZE},
    ],
)
def test_answers_that_are_none(told: dict[str, Any]) -> None:
    with hostile.playing(answering(told)) as link, Channel(link) as channel, pytest.raises(Lost, match="nonsense"):
        Filters(channel).look()


@pytest.mark.parametrize(
    "seconds", ["1e999", "NaN", "-1", "1" + "0" * 400, '"1"', "null", "1e6", "[]"], ids=lambda told: told[:9]
)
def test_a_time_that_is_none(seconds: str) -> None:
    def play(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        note = f'{{"stands": {{"data": {{"device": "dm-3"}}}}, "seconds": {seconds}}}'
        guest.send(messages.NOTE, request, note.encode())
        guest.next(messages.CANCEL)
        guest.tell(messages.REFUSAL, request, code=messages.CANCELLED, text="")

    with hostile.playing(play) as link, Channel(link) as channel, pytest.raises(Lost, match="nonsense"):
        Filters(channel).hold(["data"], {})


def changed(*notes: dict[str, Any]) -> dict[int, Blocks]:
    with hostile.playing(answering(*notes, {"ended": True})) as link, Channel(link) as channel:
        return Filters(channel).changed(KNOWN, [3, 5], BLOCK_SIZE)


def test_changes_by_era() -> None:
    notes = ({"since": 3, "ranges": [[0, 2], [5, 6]]}, {"since": 3, "ranges": [[10, 11]]}, {"since": 5, "ranges": []})
    assert changed(*notes) == {3: Blocks([0, 1, 5, 10]), 5: Blocks()}


@pytest.mark.parametrize(
    "note",
    [
        {"since": 4, "ranges": []},
        {"since": 3, "ranges": [[3, 3]]},
        {"since": 3, "ranges": [[11, 12]]},
        {"since": 3, "ranges": [[-1, 2]]},
        {"since": 3, "ranges": [[0]]},
        {"since": 3, "ranges": [[4, 6], [5, 7]]},
        {"since": 3},
        {"ranges": []},
    ],
    ids=repr,
)
def test_changes_that_cannot_be(note: dict[str, Any]) -> None:
    with pytest.raises(Lost, match="nonsense"):
        changed(note)


def test_changes_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Lost, match="nonsense"):
        changed(*[{"since": 3, "ranges": [[0, 1]]}] * 2)
    with pytest.raises(Lost, match="nonsense"):
        changed(*[{"since": 3, "ranges": []}] * 5)
    with pytest.raises(Lost, match="nonsense"):
        # They ascend, and there are as many as a disk has blocks.
        changed(*({"since": 3, "ranges": [[number, number + 1]]} for number in range(5)))
    monkeypatch.setattr(filters, "TOLD_SECONDS", 0.0)
    with pytest.raises(Lost, match="has not told all"):
        changed({"since": 3, "ranges": [[0, 1]]})


def test_whoever_waits_for_changes_may_give_up() -> None:
    def give_up() -> None:
        raise ZeroDivisionError

    notes = ({"since": 3, "ranges": [[0, 1]]}, {"ended": True})
    with (
        hostile.playing(answering(*notes)) as link,
        Channel(link) as channel,
        pytest.raises(ZeroDivisionError),
    ):
        Filters(channel).changed(KNOWN, [3], BLOCK_SIZE, give_up)
