"""The decisions of a backup: what is believed after whatever happened, what is read, what is compared."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.backup import plan
from headstart.blocks import Blocks
from headstart.hypervisor.inventory import Disk, ImageFile, Recorder
from headstart.state.values import Facts, Tracked
from headstart.tracking.mark import Kind, Mark, Standing
from headstart.units import MIB, format_bytes

LAYERS = (ImageFile("/images/web.qcow2", "qcow2", 7), ImageFile("/images/base.raw", "raw", 8, 4 * MIB, 1000))
DISK = Disk("system", 8 * MIB, "qcow2", layers=LAYERS)
TRACKED = Tracked("system", "beef", Facts(8 * MIB, "qcow2", LAYERS), "b1", "snapshot1", "r1")

BASE = Mark(Kind.BASE, "b1")
R1, R2, R3 = (Mark(Kind.ROUND, name) for name in ("r1", "r2", "r3"))
#: As it should be between two contacts.
SOUND = {BASE: Standing.RECORDING, R1: Standing.RECORDING}


def judge(
    standing: Mapping[Mark, Standing] = SOUND,
    *,
    tracked: Tracked | None = TRACKED,
    disk: Disk = DISK,
    next_rounds: Sequence[str] = (),
    snapshot_there: bool = True,
) -> plan.Verdict:
    return plan.judge(tracked, disk, standing, next_rounds, snapshot_there=snapshot_there)


#: What is told; people look for these words.
GONE = (
    "the bitmap that recorded its changes is gone (the VM was restarted, or migrated without its bitmaps, or an old"
    " image was put back)"
)
DISABLED = "the bitmap that records its changes was disabled by somebody"
INCONSISTENT = "the bitmap that records its changes is inconsistent, or below another layer"
OTHER_CHAIN = "its image or backing chain is not the one of the last contact (a snapshot, a move, a restore?)"
NO_SNAPSHOT = "its last snapshot is not in this repository any longer, or not whole"
NO_OVERLAY = "the overlay of the last round is not on it (an old image or state put back?)"


def assert_compared(verdict: plan.Verdict, reason: str, disk: Disk = DISK) -> None:
    """Neither mark nor draft is believed, and the user is told why."""
    assert verdict == plan.Verdict(disk, False, (), reason)


def assert_draft_dropped(verdict: plan.Verdict) -> None:
    assert verdict == plan.Verdict(DISK, True, ())


# docs/design.md, "what happened, what is believed"


def test_nothing_happened_or_the_vm_was_restarted_in_good_order() -> None:
    assert judge() == plan.Verdict(DISK, True, (R1,))


def test_a_disk_not_met_before_is_compared() -> None:
    assert_compared(judge(tracked=None), plan.FIRST)


def test_qemu_was_killed_and_the_bitmaps_are_gone() -> None:
    assert_compared(judge({}), GONE)


def test_qemu_was_killed_and_the_bitmaps_are_inconsistent() -> None:
    assert_compared(judge({BASE: Standing.BROKEN, R1: Standing.BROKEN}), INCONSISTENT)


def test_an_image_was_put_back_with_the_base_in_it() -> None:
    """It has the base and an older round, never the newest."""
    assert_draft_dropped(judge({BASE: Standing.RECORDING, Mark(Kind.ROUND, "r0"): Standing.RECORDING}))


def test_an_image_was_put_back_from_before_the_base() -> None:
    assert_compared(judge({Mark(Kind.BASE, "b0"): Standing.RECORDING, R1: Standing.RECORDING}), GONE)


def test_somebody_disabled_the_base() -> None:
    assert_compared(judge({BASE: Standing.FROZEN, R1: Standing.RECORDING}), DISABLED)


def test_somebody_took_an_external_snapshot() -> None:
    overlaid = dataclasses.replace(DISK, layers=(ImageFile("/images/overlay.qcow2", "qcow2", 9), *LAYERS))
    assert_compared(judge(disk=overlaid), OTHER_CHAIN, overlaid)
    assert_compared(judge({BASE: Standing.BROKEN, R1: Standing.BROKEN}, disk=overlaid), OTHER_CHAIN, overlaid)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/images/other.raw"},
        {"driver": "qcow2"},
        {"inode": 9},
        {"size": 5 * MIB},
        {"modified_ns": 1001},
    ],
    ids=lambda change: next(iter(change)),
)
def test_somebody_changed_the_backing_file(change: dict[str, object]) -> None:
    changed = dataclasses.replace(LAYERS[1], **change)  # type: ignore[arg-type]
    disk = dataclasses.replace(DISK, layers=(LAYERS[0], changed))
    assert_compared(judge(disk=disk), OTHER_CHAIN, disk)


def test_the_backing_file_was_merged() -> None:
    disk = dataclasses.replace(DISK, layers=LAYERS[:1])
    assert_compared(judge(disk=disk), OTHER_CHAIN, disk)


@pytest.mark.parametrize("size", [8 * MIB - 512, 4 * MIB, 0])
def test_the_disk_was_shrunk(size: int) -> None:
    disk = dataclasses.replace(DISK, size=size)
    said = f"it was shrunk from {format_bytes(8 * MIB)} to {format_bytes(size)} ({8 * MIB} to {size} bytes)"
    assert_compared(judge(disk=disk), said, disk)


@pytest.mark.parametrize(
    ("before", "now", "added"),
    [
        (8 * MIB, 8 * MIB, []),
        (8 * MIB - 512, 8 * MIB - 512, []),
        (8 * MIB, 8 * MIB + 512, [128]),
        (8 * MIB - 512, 8 * MIB, [127]),
        (8 * MIB - 512, 8 * MIB + 64 * 1024, [127, 128]),
        (0, 512, [0]),
    ],
)
def test_the_disk_grew(before: int, now: int, added: list[int]) -> None:
    """Marks tell of all but its new part, and of the block that ended short."""
    disk, known = dataclasses.replace(DISK, size=now), Facts(before, "qcow2", LAYERS)
    tracked = dataclasses.replace(TRACKED, facts=known)
    assert judge(tracked=tracked, disk=disk) == plan.Verdict(disk, True, (R1,))
    assert list(plan.new_part(known, disk, 64 * 1024)) == added


def test_the_disk_was_converted() -> None:
    disk = dataclasses.replace(DISK, format="raw")
    assert_compared(judge(disk=disk), "its format was changed from qcow2 to raw", disk)


def test_how_a_disk_is_attached_does_not_matter() -> None:
    moved = dataclasses.replace(DISK, interface="scsi", serial="other", unreadable="iothread")
    assert judge(disk=moved) == plan.Verdict(moved, True, (R1,))


def test_the_state_is_an_old_copy() -> None:
    """From before the last backup, and from before the last round."""
    later = {Mark(Kind.BASE, "b2"): Standing.RECORDING, R2: Standing.RECORDING}
    assert_compared(judge(later), GONE)
    assert_draft_dropped(judge({BASE: Standing.RECORDING, R2: Standing.RECORDING}))


@pytest.mark.parametrize("standing", [SOUND, {}])
def test_the_last_snapshot_is_not_in_this_repository(standing: Mapping[Mark, Standing]) -> None:
    verdict = judge(standing, snapshot_there=False)
    assert_compared(verdict, NO_SNAPSHOT if standing else GONE)


def test_a_base_that_was_given_up_is_not_believed_again() -> None:
    """Why it was given up goes on being the reason, whatever stands in the VM."""
    given_up = dataclasses.replace(TRACKED, base="", reason="it was resized in the middle")
    assert_compared(judge(tracked=given_up), given_up.reason)
    assert_compared(judge({**SOUND, Mark(Kind.BASE, ""): Standing.RECORDING}, tracked=given_up), given_up.reason)


def test_a_disk_that_is_being_compared_goes_on_with_its_base() -> None:
    comparing = dataclasses.replace(TRACKED, snapshot=None, reason=plan.FIRST, entire=Blocks(range(128)))
    assert judge(tracked=comparing) == plan.Verdict(DISK, True, (R1,))


# rounds of runs that were ended


def test_without_a_round_there_is_no_draft() -> None:
    without = dataclasses.replace(TRACKED, round="")
    assert_draft_dropped(judge(tracked=without))
    assert_draft_dropped(judge({**SOUND, R2: Standing.RECORDING}, tracked=without, next_rounds=["r2"]))


def test_a_run_was_ended_before_it_rotated() -> None:
    assert judge(next_rounds=["r2"]).rounds == (R1,)


def test_a_run_was_ended_after_it_rotated() -> None:
    standing = {**SOUND, R1: Standing.FROZEN, R2: Standing.RECORDING}
    assert judge(standing, next_rounds=["r2"]).rounds == (R1, R2)


def test_several_runs_were_ended() -> None:
    standing = {BASE: Standing.RECORDING, R1: Standing.FROZEN, R2: Standing.RECORDING}
    assert judge(standing, next_rounds=["r2", "r3"]).rounds == (R1, R2)
    standing |= {R2: Standing.FROZEN, R3: Standing.RECORDING}
    assert judge(standing, next_rounds=["r2", "r3"]).rounds == (R1, R2, R3)


def test_rounds_that_a_hypervisor_cannot_freeze_are_read_together() -> None:
    standing = {BASE: Standing.RECORDING, R1: Standing.RECORDING, R2: Standing.RECORDING}
    assert judge(standing, next_rounds=["r2", "r3"]).rounds == (R1, R2)
    assert judge(standing | {R3: Standing.RECORDING}, next_rounds=["r2", "r3"]).rounds == (R1, R2, R3)
    assert_draft_dropped(judge(standing | {R3: Standing.BROKEN}, next_rounds=["r2", "r3"]))


def test_a_disk_that_nothing_records_is_compared_whatever_was() -> None:
    raw = Disk("system", 8 * MIB, "raw", layers=LAYERS, untracked="raw disks keep no checkpoints")
    for tracked in (None, TRACKED):
        assert_compared(judge(tracked=tracked, disk=raw), "raw disks keep no checkpoints", raw)


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        (None, "recording", None),
        ("frozen", None, None),
        ("frozen", None, "recording"),
        ("frozen", "frozen", None),
        ("frozen", "frozen", "frozen"),
        ("frozen", "frozen", "broken"),
        ("frozen", "broken", "recording"),
        ("broken", "frozen", "recording"),
        (None, None, None),
        (None, "frozen", "recording"),
    ],
)
def test_a_gap_in_the_rounds_drops_the_draft(first: str | None, second: str | None, third: str | None) -> None:
    given = zip((R1, R2, R3), (first, second, third), strict=True)
    standing = {BASE: Standing.RECORDING} | {mark: Standing(each) for mark, each in given if each}
    assert_draft_dropped(judge(standing, next_rounds=["r2", "r3"]))


states = some.one_of(some.none(), some.sampled_from(Standing))


@given(some.lists(states, min_size=1, max_size=5), states, some.booleans(), some.integers(0, 3))
def test_a_believed_draft_is_covered_from_its_newest_round_until_now(
    rounds: list[Standing | None], base: Standing | None, snapshot_there: bool, other: int
) -> None:
    marks = [Mark(Kind.ROUND, f"r{number}") for number in range(len(rounds))]
    standing = {mark: each for mark, each in [(BASE, base), *zip(marks, rounds, strict=True)] if each}
    standing |= {Mark(Kind.ROUND, f"other{number}"): Standing.RECORDING for number in range(other)}
    tracked = dataclasses.replace(TRACKED, round="r0")
    next_rounds = [mark.id for mark in marks[1:]]
    verdict = judge(standing, tracked=tracked, next_rounds=next_rounds, snapshot_there=snapshot_there)
    assert verdict.base_holds == (base is Standing.RECORDING and snapshot_there) == (not verdict.reason)
    if not verdict.rounds:
        return
    assert verdict.base_holds
    assert list(verdict.rounds) == marks[: len(verdict.rounds)]
    assert [standing[mark] for mark in verdict.rounds[:-1]] == [Standing.FROZEN] * (len(verdict.rounds) - 1)
    assert standing[verdict.rounds[-1]] is Standing.RECORDING
    # Only the last may not have begun.
    assert len(verdict.rounds) >= len(marks) - 1
    assert len(verdict.rounds) == len(marks) or marks[-1] not in standing


# the residue

few_blocks = some.builds(Blocks, some.sets(some.integers(0, 12)))


@given(few_blocks, few_blocks, few_blocks, few_blocks, some.one_of(some.none(), few_blocks))
def test_each_block_of_the_new_image_comes_from_one_place(
    recorded: Blocks, entire: Blocks, draft: Blocks, stale: Blocks, protected: Blocks | None
) -> None:
    given_before = [set(each) for each in (recorded, entire, draft, stale)]
    found = plan.residue(recorded, entire, draft, stale, protected)
    changed = recorded | entire
    # Each block of the new image comes from one place.
    assert not found.precopied & found.residue
    assert found.precopied | found.residue == found.changed
    # What the last snapshot would say of it counts for nothing else than what did not change.
    assert found.changed <= changed
    # The draft is believed where nothing was written since it was read, and only there.
    assert found.precopied == (draft & changed) - stale
    if protected is None:
        assert found.changed == changed
    else:
        assert found.residue <= protected
        assert (changed - found.changed) & protected == Blocks()
        assert found.changed | (changed - protected) == changed
    assert [set(each) for each in (recorded, entire, draft, stale)] == given_before


@given(few_blocks, few_blocks, few_blocks, few_blocks)
def test_nothing_changed_is_missing(recorded: Blocks, entire: Blocks, draft: Blocks, stale: Blocks) -> None:
    """Also where only what was wanted is protected: that is what had changed up to the point in time."""
    wanted = (recorded | entire) - (draft - stale)
    found = plan.residue(recorded, entire, draft, stale, wanted)
    assert found.precopied | found.residue == recorded | entire


def test_facts_of_a_disk_are_what_it_is_known_by() -> None:
    assert plan.facts_of(DISK) == TRACKED.facts


@given(few_blocks, few_blocks, few_blocks)
def test_what_is_left_out_is_zeroes_and_not_read(changed: Blocks, precopied: Blocks, excluded: Blocks) -> None:
    found = plan.leave_out(plan.Residue(changed | precopied, precopied, changed - precopied), excluded)
    assert found.changed == changed | precopied | excluded
    assert found.precopied == precopied - excluded
    assert found.residue == changed - precopied - excluded


# overlays of ours

OVERLAID = dataclasses.replace(
    DISK, recorder=Recorder.OVERLAY, overlays=1, layers=(ImageFile("/images/ours.qcow2", "qcow2", 9), *LAYERS)
)


def test_an_overlay_of_ours_is_no_change_of_the_disk() -> None:
    assert plan.facts_of(OVERLAID) == TRACKED.facts
    assert judge(disk=OVERLAID) == plan.Verdict(OVERLAID, True, (R1,))


def test_without_the_overlay_of_the_last_round_its_disk_is_compared() -> None:
    """What was recorded before that round is in the journal alone, so the base does not hold either."""
    assert_compared(judge({BASE: Standing.RECORDING}, disk=OVERLAID), NO_OVERLAY, OVERLAID)
    assert_compared(judge(disk=OVERLAID, tracked=dataclasses.replace(TRACKED, round="")), NO_OVERLAY, OVERLAID)


# how many rounds


def test_another_round_is_worth_it_until_little_is_left() -> None:
    assert plan.worth_another_round(plan.SETTLED_BYTES + 1, 1)
    assert not plan.worth_another_round(plan.SETTLED_BYTES, 1)
    assert not plan.worth_another_round(0, 0)


def test_a_guest_that_writes_faster_than_we_copy_is_given_up() -> None:
    assert plan.worth_another_round(2**50, plan.MOST_ROUNDS - 1)
    assert not plan.worth_another_round(2**50, plan.MOST_ROUNDS)


# the audit's sample

counts = some.tuples(*[some.integers(0, 300)] * 3)


def vm_of(sizes: Sequence[tuple[int, int, int]]) -> dict[str, plan.Population]:
    """By disk so many blocks that the agent delivered, so many of the draft after them, and so many unchanged ones."""
    return {
        str(number): plan.Population(
            Blocks(range(delivered)),
            Blocks(range(delivered, delivered + copied)),
            Blocks(range(delivered + copied, delivered + copied + unchanged)),
        )
        for number, (delivered, copied, unchanged) in enumerate(sizes)
    }


@given(some.lists(counts, max_size=4), some.integers(0, 400), some.randoms(use_true_random=False))
def test_a_sample_is_as_large_as_wanted_if_there_is_as_much(
    sizes: list[tuple[int, int, int]], wanted: int, source: random.Random
) -> None:
    disks = vm_of(sizes)
    found = plan.sample(disks, wanted, source)
    assert found.keys() == disks.keys()
    for disk, each in disks.items():
        assert found[disk].draft <= each.delivered | each.copied
        assert found[disk].unchanged <= each.unchanged
        assert found[disk].blocks == found[disk].draft | found[disk].unchanged
    there = sum(sum(each) for each in sizes)
    delivered = sum(delivered for delivered, _, _ in sizes)
    drawn = sum(len(each.blocks) for each in found.values())
    of_agent = sum(len(found[disk].draft & each.delivered) for disk, each in disks.items())
    # Shares of disks are rounded up.
    assert min(wanted, there) <= drawn <= min(there, wanted + round(wanted * plan.AUDIT_REST_SHARE) + 3 * len(disks))
    assert min(wanted, delivered) <= of_agent <= min(delivered, wanted + len(disks))
    foreseen = plan.sample_size([sum(each) for each in sizes], wanted, delivered=delivered > 0)
    assert drawn <= foreseen + 3 * len(disks)


@given(some.lists(counts, max_size=4), some.randoms(use_true_random=False))
def test_everything_can_be_wanted(sizes: list[tuple[int, int, int]], source: random.Random) -> None:
    disks = vm_of(sizes)
    everything = {disk: plan.Sample(each.delivered | each.copied, each.unchanged) for disk, each in disks.items()}
    assert plan.sample(disks, None, source) == everything
    there = [sum(each) for each in sizes]
    assert plan.sample_size(there, None, delivered=True) == sum(there)


def test_what_the_agent_delivered_is_drawn_in_full_and_of_the_rest_a_third_more() -> None:
    found = plan.sample(vm_of([(1000, 1000, 5000), (3000, 1000, 5000)]), 300, random.Random(1))
    delivered = [len(each.draft & Blocks(range(size))) for each, size in zip(found.values(), (1000, 3000), strict=True)]
    assert delivered == [75, 225]
    assert sum(len(each.draft) for each in found.values()) - 300 == 68
    assert sum(len(each.unchanged) for each in found.values()) == 34


def test_without_an_agent_two_thirds_are_of_the_draft() -> None:
    found = plan.sample(vm_of([(0, 1000, 5000), (0, 3000, 5000)]), 300, random.Random(1))
    assert [(len(each.draft), len(each.unchanged)) for each in found.values()] == [(50, 50), (150, 50)]


@pytest.mark.parametrize(
    ("draft", "unchanged", "expected"),
    [(0, 1000, (0, 300)), (1000, 0, (300, 0)), (10, 1000, (10, 290)), (1000, 10, (290, 10)), (5, 5, (5, 5))],
)
def test_what_one_part_lacks_is_drawn_from_the_other(draft: int, unchanged: int, expected: tuple[int, int]) -> None:
    found = plan.sample(vm_of([(0, draft, unchanged)]), 300, random.Random(1))["0"]
    assert (len(found.draft), len(found.unchanged)) == expected


def test_every_block_can_be_drawn() -> None:
    source, disks = random.Random(1), vm_of([(15, 20, 10)])
    drawn = Blocks().union(*(plan.sample(disks, 9, source)["0"].blocks for _ in range(400)))
    assert drawn == Blocks(range(45))


def test_a_thousandth_of_false_blocks_is_found_with_a_probability_of_95_percent() -> None:
    """1 - 0.999 ** 3000 = 95 % (docs/security.md), with two disks, and false blocks wherever the guest likes.

    A band of four standard deviations; two thirds of 3,000 would be found in 86 %."""
    chance, trials = random.Random(20260302), 400
    delivered = {"a": Blocks(range(80_000)), "b": Blocks(range(20_000))}
    disks = {disk: plan.Population(each, Blocks(range(90_000, 99_000)), Blocks(range(10**5, 10**6)))
             for disk, each in delivered.items()}  # fmt: skip
    places: dict[str, Callable[[], Blocks]] = {
        "anywhere": lambda: Blocks(chance.sample(range(80_000), 100)),
        "side by side": lambda: Blocks(range(start := chance.randrange(79_900), start + 100)),
    }
    expected = 1 - 0.999**plan.AUDIT_BLOCKS
    deviation = (expected * (1 - expected) / trials) ** 0.5
    for name, place in places.items():
        found = sum(bool(plan.sample(disks, plan.AUDIT_BLOCKS, chance)["a"].draft & place()) for _ in range(trials))
        assert abs(found / trials - expected) < 4 * deviation, (name, found)
    assert 0.949 < expected < 0.951
