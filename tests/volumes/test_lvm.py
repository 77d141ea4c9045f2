"""Metadata of LVM2 as LVM writes it, and as it should never be."""

from __future__ import annotations

import struct
from dataclasses import astuple

import pytest

from headstart.agentd.segments import Segment, Stripe
from headstart.volumes import confined, lvm, volume
from headstart.volumes.filesystem import Malformed
from headstart.volumes.lvm import PhysicalVolume
from tests.volumes.metadata import IDS, TEXT, Bytes, on_disk

MIB = 1 << 20


def physical(count: int, text: str = TEXT) -> list[PhysicalVolume]:
    bases = [volume.partition(f"disk{number}", "1", MIB, 500 * MIB) for number in range(count)]
    return [
        PhysicalVolume(IDS[number].replace("-", ""), base, text if number == 0 else "")
        for number, base in enumerate(bases)
    ]


def test_logical_volumes_are_told_as_places_of_disks() -> None:
    found = {each.name: each for each in lvm.volumes(physical(2))}
    assert found.keys() == {"vg0/root", "vg0/fast", "vg0/small"}
    assert found["vg0/root"].size == 12 * MIB
    assert found["vg0/root"].segments == (
        Segment(0, 8 * MIB, (Stripe("disk0", (1 + 1 + 40) * MIB),)),
        Segment(8 * MIB, 4 * MIB, (Stripe("disk1", (1 + 2) * MIB),)),
    )
    assert found["vg0/fast"].segments == (
        Segment(0, 16 * MIB, (Stripe("disk0", (2 + 80) * MIB), Stripe("disk1", (3 + 120) * MIB)), 65536),
    )
    assert found["vg0/small"].segments is None and found["vg0/small"].problem == "it is a thin volume"


def segments_of(*starts: int) -> str:
    """``vg0/root`` of 12 KiB, in parts of 4 KiB that begin at these."""
    parts = "".join(
        f"segment{number} {{ start_extent = {start} extent_count = 1 type = striped stripe_count = 1 "
        f'stripes = [ "pv0", {number} ] }}\n'
        for number, start in enumerate(starts, 1)
    )
    return (
        f'vg0 {{ id = "v" seqno = 1 extent_size = 8 physical_volumes {{ pv0 {{ id = "{IDS[0]}" pe_start = 64 }} }}\n'
        f"logical_volumes {{ root {{ status = [VISIBLE] segment_count = {len(starts)}\n{parts} }} }} }}"
    )


@pytest.mark.parametrize("starts", [(0, 0, 1), (0, 0, 2), (1, 0, 2), (0, 2, 1), (1, 2, 3), (0, 1, 3), (-1, 0, 1)])
def test_parts_that_overlap_or_have_no_order(starts: tuple[int, ...]) -> None:
    """Each survey is whole: one volume that makes no sense does not keep the others from being read."""
    disks = {
        "disk0": Bytes(on_disk(segments_of(*starts).encode(), 8192, 512)),
        "disk1": Bytes(bytes(1080) + struct.pack("<H", 0xEF53) + bytes(MIB)),
    }
    found = {each.name: each for each in confined.survey(disks)}
    assert found.keys() == {"disk0", "disk1", "vg0/root"}
    assert (found["vg0/root"].segments, found["vg0/root"].problem) == (None, "where it lies makes no sense")
    [its] = [each for each in lvm.volumes(physical(1, segments_of(0, 1, 2))) if each.name == "vg0/root"]
    told = [*astuple(its)]
    told[7] = [[4096 * start, 4096, [["disk0", 0]], 0] for start in starts]
    with pytest.raises(Malformed):
        volume.of_told(told, {"disk0": MIB})


def test_a_missing_physical_volume_is_told() -> None:
    found = {each.name: each for each in lvm.volumes(physical(1))}
    assert found["vg0/root"].segments is None
    assert "on no disk of this snapshot" in found["vg0/root"].problem


def test_the_newest_copy_counts() -> None:
    old = TEXT.replace("seqno = 7", "seqno = 6").replace("root {", "older {")
    one, two = physical(2)
    copies = [PhysicalVolume(one.id, one.volume, old), PhysicalVolume(two.id, two.volume, TEXT)]
    for order in (copies, copies[::-1]):
        assert "vg0/root" in {each.name for each in lvm.volumes(order)}


@pytest.mark.parametrize("at", [512, 7000])
def test_metadata_that_goes_around_the_ring(at: int) -> None:
    base = volume.whole("disk0", 500 * MIB)
    found = lvm.physical_volume(base, Bytes(on_disk(TEXT.encode() + b"\0", 8192, at)))
    assert found.id == IDS[0].replace("-", "")
    assert found.text == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "vg { extent_size",
        "vg " * 3,
        "vg { seqno = 1 id = 2 extent_size = [ }",
        "a {" * 100,
        TEXT.replace("extent_size = 8192", 'extent_size = "8192"'),
        TEXT.replace("segment_count = 2", "segment_count = 9"),
        TEXT.replace("stripe_count = 2", "stripe_count = 2").replace('"pv1", 30', '"pv1"'),
        TEXT.replace("physical_volumes", "physical"),
    ],
)
def test_nonsense_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        list(lvm.volumes(physical(2, text)))
        raise Malformed  # without a group there is nothing to find


def test_without_a_label_there_is_no_physical_volume() -> None:
    with pytest.raises(Malformed):
        lvm.physical_volume(volume.whole("disk0", MIB), Bytes(bytes(MIB)))
