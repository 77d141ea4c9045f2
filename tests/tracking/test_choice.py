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


@pytest.mark.parametrize(
    ("wish", "disk", "way", "said"),
    [
        (Wish.AUTO, QCOW2, Way.BITMAP, "outlast a clean end"),
        (Wish.AUTO, RAW, Way.BITMAP, "--track overlay"),
        (Wish.AUTO, LAYERED, Way.OVERLAY, "outlasts every end"),
        (Wish.AUTO, FILTERED, Way.ERA, "a filter in the guest"),
        (Wish.AUTO, UNTRACKED, Way.COMPARISON, "keep no checkpoints"),
        (Wish.OVERLAY, QCOW2, Way.BITMAP, "outlast a clean end"),
        (Wish.OVERLAY, WAITING, Way.BITMAP, "from the image itself"),
        (Wish.OVERLAY, LAYERED, Way.OVERLAY, "outlasts every end"),
        (Wish.OVERLAY, UNTRACKED, Way.COMPARISON, "keep no checkpoints"),
        (Wish.BITMAP, RAW, Way.BITMAP, "are lost"),
        (Wish.COMPARE, QCOW2, Way.COMPARISON, "asked for"),
        (Wish.BITMAP, FILTERED, Way.ERA, "a filter in the guest"),
        (Wish.COMPARE, FILTERED, Way.COMPARISON, "asked for"),
        (Wish.COMPARE, LAYERED, Way.COMPARISON, "asked for"),
    ],
)
def test_the_best_that_a_disk_allows(wish: Wish, disk: Disk, way: Way, said: str) -> None:
    found = choice.choose(wish, disk)
    assert found.way is way
    assert said in found.why
    assert str(found).startswith(f"{way.value}: ")


def test_to_compare_is_to_record_nothing() -> None:
    inventory = Inventory((QCOW2, UNTRACKED))
    assert choice.applied(Wish.AUTO, inventory) is inventory
    one, other = choice.applied(Wish.COMPARE, inventory).disks
    assert one.untracked == choice.ASKED
    assert other.untracked == UNTRACKED.untracked
    assert choice.choose(Wish.AUTO, one).way is Way.COMPARISON
