"""The planner of a VM: what it says fits together over days, whatever the clock does."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.backup import agenda
from headstart.backup.planner import Outcome, Planner, Reported
from headstart.blocks import Blocks

HOUR, DAY = 3600.0, 86400.0
ROOM = 1 << 20


def reported(recorded: Blocks, remaining: Blocks, wasted: Blocks | None = None) -> dict[str, Reported]:
    return {"a": Reported(recorded, wasted or Blocks(), remaining)}


SETS = st.frozensets(st.integers(0, 500), max_size=60).map(Blocks)


@given(st.lists(st.tuples(st.floats(0, 2 * HOUR), SETS), min_size=1, max_size=20), st.floats(1.0, DAY))
def test_what_is_chosen_and_what_is_left_are_the_remaining(rounds: list[tuple[float, Blocks]], left: float) -> None:
    planner, now, owed = Planner(), 1000.0, Blocks()
    for passed, recorded in rounds:
        now += passed
        owed |= recorded
        chosen = planner.choose(now, now + left, reported(recorded, owed), None, ROOM)["a"]
        assert chosen | planner.disks["a"].later == owed and chosen.isdisjoint(planner.disks["a"].later)
        assert planner.cut(now, now + left) >= now
        planner.copied(now + 1, {"a": len(chosen)}, {"a": chosen}, 1.0)
        owed -= chosen


def test_a_day_of_a_guest_with_hot_and_cold_blocks() -> None:
    """A hundred blocks are written all the time, others once. At the deadline only the hot ones are left, and none of
    the others was copied twice."""
    planner, chance = Planner(), random.Random(1)
    draft, owed, copies = Blocks(), Blocks(), 0
    now, deadline, fresh = 0.0, DAY, 1000
    hot = Blocks(range(100))
    while (at := planner.next_round(now, deadline)) is not None:
        passed, now = at - now, at
        cold = Blocks(range(fresh, fresh + int(passed / 60)))
        fresh += len(cold)
        written = cold | Blocks(chance.sample(list(hot), 50) if passed > 60 else ())
        wasted = draft & written
        draft -= written
        owed |= written
        chosen = planner.choose(now, deadline, reported(written, owed - draft, wasted), None, ROOM)["a"]
        draft |= chosen
        copies += len(chosen)
        now += 1.0
        planner.copied(now, {"a": len(chosen)}, {"a": chosen}, 1.0)
    assert deadline - 30 < now < deadline
    assert len(owed - draft) <= len(hot)
    assert copies < 1.2 * len(owed)


@pytest.mark.parametrize("interval", [60.0, 900.0, HOUR])
def test_far_from_the_deadline_rounds_keep_their_interval_and_then_come_closer(interval: float) -> None:
    planner, now, begins = Planner(interval=interval), 0.0, []
    while (at := planner.next_round(now, 8 * HOUR)) is not None:
        planner.choose(at, 8 * HOUR, reported(Blocks(), Blocks()), None, ROOM)
        planner.copied(at + 1, {}, {}, 1.0)
        begins.append(at)
        now = at + 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(begins)]
    assert max(gaps) <= interval + agenda.LEAST and gaps[0] == interval
    assert all(gap >= agenda.LEAST for gap in gaps)
    assert 8 * HOUR - begins[-1] < 20


@pytest.mark.parametrize("back", [1.0, HOUR, 30 * DAY])
def test_a_clock_that_is_put_back_delays_a_round_by_an_interval_at_most(back: float) -> None:
    planner = Planner(interval=900.0)
    planner.choose(40 * DAY, None, reported(Blocks([1]), Blocks([1])), None, ROOM)
    planner.copied(40 * DAY + 5, {}, {}, 1.0)
    now = 40 * DAY - back
    at = planner.next_round(now, None)
    assert at is not None and at <= now + 905


def test_what_a_paced_round_did_not_come_to_is_taken_up_soon() -> None:
    planner = Planner(interval=900.0)
    planner.choose(0.0, DAY, reported(Blocks(), Blocks(range(100))), None, ROOM)
    planner.copied(60.0, {"a": 10}, {"a": Blocks(range(100))}, 60.0)
    assert planner.next_round(60.0, DAY) == 60.0 + agenda.LEAST


def test_holes_that_are_copied_unread_tell_nothing_of_the_rate() -> None:
    planner = Planner()
    holes = Blocks(range(100_000))
    planner.choose(0.0, DAY, reported(holes, holes), None, ROOM)
    planner.copied(20.0, {"a": len(holes)}, {"a": holes}, 20.0, 100)
    assert planner.rate is None, "or rounds of few blocks would follow, for ever"
    planner.copied(40.0, {"a": 2000}, {"a": holes}, 20.0, 1600)
    assert planner.rate == 5 << 20
    for read in (0, 100):
        planner.copied(60.0, {"a": len(holes)}, {"a": holes}, 20.0, read)
        assert planner.rate == 5 << 20 and not planner.barren


def test_a_disk_that_is_gone_is_forgotten_and_a_new_one_learned() -> None:
    planner = Planner()
    planner.choose(0.0, None, reported(Blocks([1]), Blocks([1])), None, ROOM)
    planner.choose(10.0, None, {"b": Reported(Blocks(), Blocks(), Blocks([2]))}, None, ROOM)
    assert list(planner.disks) == ["b"]


def test_waste_lowers_the_threshold_and_thrift_raises_it() -> None:
    def threshold(wasted: int) -> float:
        planner = Planner()
        all_of_it = Blocks(range(1000))
        planner.choose(0.0, DAY, reported(Blocks(), all_of_it), None, ROOM)
        planner.copied(10.0, {"a": 1000}, {"a": all_of_it}, 1.0)
        planner.completed(DAY, {"a": Outcome(residue=wasted, precopied=1000 - wasted)})
        return planner.disks["a"].learned.threshold

    assert threshold(500) < threshold(80) < threshold(0)


def test_a_clock_that_was_far_ahead_spoils_nothing_that_comes_after() -> None:
    planner = Planner()
    planner.choose(400 * DAY, 401 * DAY, reported(Blocks(range(50)), Blocks(range(50))), None, ROOM)
    planner.copied(400 * DAY + 5, {}, {}, 1.0)
    now = 10 * DAY
    assert planner.next_round(now, now + DAY) is not None
    cold = Blocks(range(1000, 2000))
    planner.choose(now, now + DAY, reported(cold, cold), None, ROOM)
    planner.copied(now + 5, {}, {"a": cold}, 1.0)
    for hour in range(1, 24):
        chosen = planner.choose(now + hour * HOUR, now + DAY, reported(Blocks(), cold), None, ROOM)["a"]
        planner.copied(now + hour * HOUR + 5, {}, {"a": chosen}, 1.0)
        if chosen == cold:
            return
    raise AssertionError("what was quiet for a day is not copied")


def test_a_disk_that_nobody_can_read_is_tried_less_and_less_often() -> None:
    planner, now, begins = Planner(interval=900.0), 0.0, []
    for _ in range(12):
        at = planner.next_round(now, None)
        assert at is not None
        begins.append(at)
        planner.choose(at, None, reported(Blocks(), Blocks(range(10))), None, ROOM)
        planner.copied(at, {"a": 0}, {"a": Blocks(range(10))}, 0.0)
        now = at
    gaps = [later - earlier for earlier, later in itertools.pairwise(begins)]
    assert gaps == sorted(gaps) and gaps[-1] == 900.0
