"""Which way is taken for a disk, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart.hypervisor.inventory import Disk, ImageFile, Inventory, Recorder
from headstart.tracking import choice
from headstart.tracking.choice import Way, Wish

RAW = Disk("data", 1 << 20, "raw", layers=(ImageFile("/images/data.raw", "raw", 1),))
QCOW2 = replace(RAW, format="qcow2", persistent=True)
LAYERED = replace(RAW, persistent=True, recorder=Recorder.OVERLAY, overlays=1)
WAITING = replace(RAW, unlayered="the VM was started from the image itself")
FILTERED = replace(RAW, persistent=True, recorder=Recorder.ERA)
UNTRACKED = replace(RAW, untracked="raw disks keep no checkpoints")
FORGOTTEN = replace(LAYERED, recorder=Recorder.BITMAP, persistent=False)

#: What people are told.
CLEAN = "its image keeps bitmaps, which outlast a clean end of QEMU"
LOST = "bitmaps of a raw image are lost with each end of QEMU, and then all is read"
OURS = "it stands on an overlay of ours, whose record outlasts every end of QEMU"
FILTER = "a filter in the guest records it, which outlasts the guest's boots and is its word"
FROM_ITSELF = "; no overlay: the VM was started from the image itself"


@pytest.mark.parametrize(
    ("wish", "disk", "way", "said"),
    [
        (Wish.AUTO, QCOW2, Way.BITMAP, CLEAN),
        (Wish.AUTO, RAW, Way.BITMAP, f"{LOST} (--track overlay keeps the record)"),
        (Wish.AUTO, LAYERED, Way.OVERLAY, OURS),
        (Wish.AUTO, FILTERED, Way.ERA, FILTER),
        (Wish.AUTO, UNTRACKED, Way.COMPARISON, UNTRACKED.untracked),
        (Wish.AUTO, FORGOTTEN, Way.BITMAP, "no overlay records it"),
        (Wish.OVERLAY, QCOW2, Way.BITMAP, CLEAN),
        (Wish.OVERLAY, WAITING, Way.BITMAP, f"{LOST}{FROM_ITSELF}"),
        (Wish.OVERLAY, LAYERED, Way.OVERLAY, OURS),
        (Wish.OVERLAY, UNTRACKED, Way.COMPARISON, UNTRACKED.untracked),
        (
            Wish.OVERLAY,
            replace(UNTRACKED, unlayered=WAITING.unlayered),
            Way.COMPARISON,
            f"{UNTRACKED.untracked}{FROM_ITSELF}",
        ),
        (
            Wish.OVERLAY,
            replace(FORGOTTEN, unlayered=WAITING.unlayered),
            Way.BITMAP,
            f"no overlay records it{FROM_ITSELF}",
        ),
        (Wish.BITMAP, RAW, Way.BITMAP, LOST),
        (Wish.BITMAP, FILTERED, Way.ERA, FILTER),
        (Wish.COMPARE, QCOW2, Way.COMPARISON, choice.ASKED),
        (Wish.COMPARE, FILTERED, Way.COMPARISON, choice.ASKED),
        (Wish.COMPARE, LAYERED, Way.COMPARISON, choice.ASKED),
    ],
)
def test_the_best_that_a_disk_allows(wish: Wish, disk: Disk, way: Way, said: str) -> None:
    assert choice.choose(wish, disk) == choice.Choice(way, said)
    assert str(choice.choose(wish, disk)) == f"{way.value}: {said}"


def test_to_compare_is_to_record_nothing() -> None:
    inventory = Inventory((QCOW2, UNTRACKED), definition="how it was started")
    assert choice.applied(Wish.AUTO, inventory) is inventory
    applied = choice.applied(Wish.COMPARE, inventory)
    one, other = applied.disks
    assert applied == replace(inventory, disks=(replace(QCOW2, untracked=choice.ASKED), UNTRACKED))
    assert one.untracked == choice.ASKED
    assert other.untracked == UNTRACKED.untracked
    assert choice.choose(Wish.AUTO, one).way is Way.COMPARISON
