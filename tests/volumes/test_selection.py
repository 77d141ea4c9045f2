"""What patterns leave out of disks, and what never."""

from __future__ import annotations

import dataclasses

import pytest

from headstart.agentd.segments import Segment, Stripe
from headstart.blocks import Blocks
from headstart.volumes import selection, volume
from headstart.volumes.mounts import Mounts
from headstart.volumes.selection import Seen, Selected
from headstart.volumes.volume import Volume

MIB = 1 << 20
BLOCK = 65536
DISKS = {"vda": 64 * MIB, "vdb": 64 * MIB}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*"], ["root", "data", "swap"]),
        (["*", "!swap"], ["root", "data"]),
        (["!swap"], ["root", "data"]),
        (["!s*", "!d*"], ["root"]),
        (["root", "data"], ["root", "data"]),
        (["[rd]*"], ["root", "data"]),
        (["!root", "root"], []),
        (["Root"], []),
        (["swap"], ["swap"]),
        (["/srv"], ["root", "data", "swap"]),
        (["root", "/srv"], ["root", "data", "swap"]),
        (["root", "!/srv"], ["root"]),
        (["!label:x", "!vg/*"], ["root", "data", "swap"]),
    ],
)
def test_which_disks_are_backed_up_at_all(patterns: list[str], names: list[str]) -> None:
    assert [name for name in ("root", "data", "swap") if selection.includes_disk(patterns, name)] == names


def part(name: str, start: int, length: int, content: str = "ext4", label: str = "") -> Volume:
    disk, _, number = name.partition("/")
    return dataclasses.replace(volume.partition(disk, number, start, length), content=content, label=label)


ROOT = part("vda/1", MIB, 10 * MIB, label="system")
SWAP = part("vda/2", 11 * MIB, 5 * MIB, "swap")
#: Ends, and the next one begins, within a block.
ODD = part("vda/3", 16 * MIB + 512, 4 * MIB, label="scratch")
NEXT = part("vda/4", 20 * MIB + 512, 4 * MIB)
BASE = part("vda/5", 30 * MIB, 30 * MIB, "LVM2_member")
OTHER_BASE = dataclasses.replace(volume.whole("vdb", 64 * MIB), content="LVM2_member")
STRIPED = Volume(
    "vg/fast", 8 * MIB, "ext4", segments=(Segment(0, 8 * MIB, (Stripe("vda", 31 * MIB), Stripe("vdb", MIB)), BLOCK),)
)
SPANNING = Volume(
    "vg/db",
    6 * MIB,
    "xfs",
    segments=(Segment(0, 4 * MIB, (Stripe("vda", 40 * MIB),)), Segment(4 * MIB, 2 * MIB, (Stripe("vdb", 20 * MIB),))),
)
THIN = Volume("vg/thin", 8 * MIB, segments=None, problem="it is a thin volume")
ALL = (ROOT, SWAP, ODD, NEXT, BASE, OTHER_BASE, STRIPED, SPANNING, THIN)
POINTS = Mounts({"vda/1": ("/",), "vg/fast": ("/srv",), "vg/db": ("/var/lib/mysql", "/mnt/db")})


def select(*patterns: str, volumes: tuple[Volume, ...] = ALL, mounts: Mounts = POINTS) -> Selected:
    return selection.select([patterns], Seen(volumes, mounts), DISKS, BLOCK)


def names(found: Selected) -> dict[str, str]:
    return {each.volume.name: each.pattern for each in found.left_out}


def span(start: int, end: int) -> Blocks:
    return Blocks(range(start // BLOCK, end // BLOCK))


@pytest.mark.parametrize(
    ("patterns", "left_out"),
    [
        (["*"], {}),
        (["vda"], {}),
        (["*", "!swap"], {"vda/2": "!swap"}),
        (["*", "!label:scratch"], {"vda/3": "!label:scratch"}),
        (["*", "!label:s*"], {"vda/1": "!label:s*", "vda/3": "!label:s*"}),
        (["*", "!label:s*", "/"], {"vda/3": "!label:s*"}),
        (["*", "!/srv/"], {"vg/fast": "!/srv/"}),
        (["*", "!/mnt/db/", "!/var/lib/mysql"], {"vg/db": "!/mnt/db/"}),
        (["*", "!/mnt"], {}),
        (["!vg/*"], {"vg/fast": "!vg/*", "vg/db": "!vg/*"}),
        (["/var/lib/mysql"], dict.fromkeys(["vda/1", "vda/2", "vda/3", "vda/4", "vg/fast"], "")),
        (["vdb", "/"], dict.fromkeys(["vda/2", "vda/3", "vda/4"], "")),
        (["/nowhere"], {}),
        (["/nowhere", "!swap"], {"vda/2": "!swap"}),
    ],
)
def test_what_is_left_out(patterns: list[str], left_out: dict[str, str]) -> None:
    assert names(select(*patterns)) == left_out


def test_a_volume_over_two_disks() -> None:
    found = select("!vg/db")
    assert found.blocks("vda") == span(40 * MIB, 44 * MIB)
    assert found.blocks("vdb") == span(20 * MIB, 22 * MIB)
    striped = select("!vg/fast")
    assert striped.blocks("vda") == span(31 * MIB, 35 * MIB)
    assert striped.blocks("vdb") == span(MIB, 5 * MIB)


def test_a_block_that_is_shared_is_kept() -> None:
    assert select("!label:scratch").blocks("vda") == span(16 * MIB + BLOCK, 20 * MIB)
    both = select("!label:scratch", "!vda/4")
    assert both.blocks("vda") == span(16 * MIB + BLOCK, 24 * MIB), "nothing else is in the block between them"


def test_the_last_block_of_a_disk_may_be_short() -> None:
    size = 3 * MIB + 512
    swap = dataclasses.replace(volume.whole("vdc", size), content="swap")
    found = selection.select([["!swap"]], Seen((swap,)), {"vdc": size}, BLOCK)
    assert found.blocks("vdc") == Blocks(range(3 * MIB // BLOCK + 1))


def test_each_list_counts_by_itself() -> None:
    found = selection.select([["/var/lib/mysql"], ["!vg/fast"]], Seen(ALL, POINTS), DISKS, BLOCK)
    assert names(found) == {**dict.fromkeys(["vda/1", "vda/2", "vda/3", "vda/4", "vg/fast"], "")}
    nothing_left = selection.select([["/srv"], ["!/srv"]], Seen(ALL, POINTS), DISKS, BLOCK)
    assert names(nothing_left)["vg/fast"] == "!/srv"


@pytest.mark.parametrize(
    ("points", "patterns", "left_out", "besides"),
    [
        (["/srv", "/var/cache"], ["*", "!/var/cache"], False, "/srv"),
        (["/srv", "/var/cache"], ["!/var/cache", "!/srv/"], True, ""),
        (["/srv", "/var/cache"], ["!/var/cache", "!vda/3"], True, ""),
        (["/srv", "/var/cache"], ["!/var/cache", "!label:scratch"], True, ""),
        (["/var/cache/", "/var/cache"], ["!/var/cache"], True, ""),
        (["/var", "/var/cache"], ["!/var"], False, "/var/cache"),
        (["/", "/var/cache"], ["!/var/cache"], False, "/"),
        # A pattern without a ``!`` needs to name one of them.
        (["/srv", "/var/cache"], ["*", "!/var/cache", "/srv"], False, ""),
        (["/srv", "/var/cache"], ["*", "!/srv", "!/var/cache", "/srv"], False, ""),
        # It would not be backed up if no pattern named it.
        (["/srv", "/var/cache"], ["/", "!/var/cache"], True, ""),
        (["/srv", "/var/cache"], ["vda", "/", "!/var/cache"], False, "/srv"),
        (["/srv", "/var/cache"], ["/nowhere", "!/var/cache"], False, "/srv"),
    ],
)
def test_what_is_mounted_at_several_points(
    points: list[str], patterns: list[str], left_out: bool, besides: str
) -> None:
    """As the subvolumes of a btrfs are."""
    mounts = Mounts({"vda/1": ("/",), "vda/3": tuple(points)})
    found = select(*patterns, volumes=(ROOT, ODD), mounts=mounts)
    assert ("vda/3" in names(found)) is left_out
    told = f"volume vda/3 is backed up, and was to be left out: it is also mounted at {besides}"
    assert [note for note in found.notes if "vda/3" in note] == ([told] if besides else [])


def test_several_lists_that_each_name_one_of_its_points() -> None:
    found = selection.select([["!/mnt/db"], ["!/var/lib/mysql"]], Seen(ALL, POINTS), DISKS, BLOCK)
    assert not found.left_out and len(found.notes) == 2


@pytest.mark.parametrize(
    ("volumes", "why"),
    [
        ((dataclasses.replace(SWAP, doubt="the two copies of its partition table differ"),), "the two copies"),
        ((SWAP, SWAP), "another volume has its name"),
        ((dataclasses.replace(SWAP, segments=None, problem="it is a mirror"),), "it is a mirror"),
    ],
)
def test_nothing_is_left_out_in_doubt(volumes: tuple[Volume, ...], why: str) -> None:
    found = select("!swap", volumes=volumes)
    assert not found.left_out and why in " ".join(found.notes)


def test_what_lies_over_each_other_is_kept() -> None:
    over = part("vda/9", 12 * MIB, MIB)
    found = select("!swap", volumes=(SWAP, over))
    assert found.blocks("vda") == span(11 * MIB, 12 * MIB) | span(13 * MIB, 16 * MIB)


@pytest.mark.parametrize("pattern", ["!vda/5", "!vg/thin"])
def test_what_cannot_be_left_out_is_told(pattern: str) -> None:
    found = select(pattern)
    assert not found.left_out and pattern.removeprefix("!") in found.notes[0]


def test_disks_that_nobody_understands() -> None:
    found = selection.select([["!swap"]], Seen(problem="it took too long"), DISKS, BLOCK)
    assert not found.left_out and found.notes == ("no volume is left out: it took too long",)
    assert not selection.select([["*"]], Seen(problem="it took too long"), DISKS, BLOCK).notes


def test_unknown_mount_points_are_told() -> None:
    found = select("!/srv", mounts=Mounts(problem="no volume that can be read has an /etc/fstab"))
    assert not found.left_out and "no volume that can be read has an /etc/fstab" in found.notes[0]
