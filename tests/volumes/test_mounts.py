"""Mount points, as the fstab of the one system on the disks has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from headstart.volumes import mounts, selection, survey, volume
from headstart.volumes.looker import Looker
from headstart.volumes.mounts import Mounts
from headstart.volumes.selection import Seen
from headstart.volumes.volume import Volume
from tests.kit import layouts
from tests.volumes.metadata import Bytes


def look(*images: Path) -> Seen:
    """By the process that parses."""
    contents = {f"vd{letter}": image.read_bytes() for letter, image in zip("abc", images, strict=False)}
    with Looker({name: len(content) for name, content in contents.items()}) as looker:
        return looker.look(lambda disk, start, length: contents[disk][start : start + length])


def test_by_the_names_of_fstab(tmp_path: Path) -> None:
    fstab = (
        "# comment\nLABEL=system / ext4 x\nLABEL=scratch /var/tmp ext4 x\n"
        "LABEL=scratch /mnt\\040two ext4 x\nLABEL=paging none swap x\n"
    )
    seen = look(layouts.system(tmp_path, fstab))
    assert seen.mounts == Mounts({"vda/1": ("/",), "vda/3": ("/var/tmp", "/mnt two")})


@pytest.mark.parametrize("name", [b"/\xff", b"/\xed\xa0\x80"])
def test_what_is_no_unicode_can_stand_in_a_manifest(tmp_path: Path, name: bytes) -> None:
    seen = look(layouts.system(tmp_path, "LABEL=scratch /srv" + name.decode("utf-8", "surrogateescape") + " ext4 x\n"))
    [point] = seen.mounts.points["vda/3"]
    assert point.startswith("/srv/") and point.encode()


def test_two_systems_or_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (layouts.system(tmp_path / name, "LABEL=scratch /srv ext4 x\n") for name in ("one", "two"))
    assert "several volumes have an /etc/fstab" in look(one, two).mounts.problem
    content = Bytes(two.read_bytes()[: layouts.SIZE])
    others = [each for each in survey.volumes({"vda": content}) if each.name != "vda/1"]
    assert "no volume that can be read has" in mounts.find(others, lambda _disk, *span: content.read(*span)).problem


def test_a_name_of_two_volumes_is_neither_s(tmp_path: Path) -> None:
    image = layouts.system(tmp_path, "LABEL=scratch /srv ext4 x\n")
    copy = tmp_path / "copy.raw"
    content = bytearray(image.read_bytes())
    content[: layouts.SWAP[0] << 20] = bytes(layouts.SWAP[0] << 20)
    start, length = (each << 20 for each in layouts.SCRATCH)
    copy.write_bytes(content[start : start + length])
    assert look(image).mounts.points["vda/3"] == ("/srv",)
    assert "vda/3" not in look(image, copy).mounts.points


ROOT = dataclasses.replace(
    volume.partition("vda", "1", 0, 1 << 20), content="ext4", label="system", uuid="a-1", partition_uuid="1234-01"
)
#: Of which a part may be mounted by its own name, and another by one that tells nothing.
BTRFS = dataclasses.replace(volume.whole("vdb", 1 << 20), content="btrfs", label="pool", uuid="b-1")
OTHER = dataclasses.replace(volume.whole("vdc", 1 << 20), content="btrfs", label="pool", uuid="c-1")
CACHE = "UUID=b-1 /var/cache btrfs subvol=@cache\n"


@pytest.mark.parametrize(
    ("fstab", "points"),
    [
        (CACHE, {"vdb": ("/var/cache",)}),
        (CACHE + "UUID=b-1 /srv btrfs subvol=@srv\n", {"vdb": ("/var/cache", "/srv")}),
        (CACHE + "UUID=c-1 /srv btrfs x\n", {"vdb": ("/var/cache",), "vdc": ("/srv",)}),
        (CACHE + "UUID=elsewhere /srv btrfs x\n", {"vdb": ("/var/cache",)}),
        (CACHE + "/dev/vdb /srv btrfs subvol=@srv\n", {}),
        (CACHE + "UUID=c-1 /mnt btrfs x\n/dev/disk/by-id/virtio-1 /srv auto,btrfs subvol=@srv\n", {}),
        (CACHE + "LABEL=pool /srv btrfs subvol=@srv\n", {}),
        (CACHE + "/dev/vdd /srv ext4 x\n/dev/sr0 /media/cdrom auto x\n", {"vdb": ("/var/cache",)}),
    ],
)
def test_where_another_part_of_a_btrfs_may_be_mounted(fstab: str, points: dict[str, tuple[str, ...]]) -> None:
    assert mounts.told(fstab, ROOT, [ROOT, BTRFS, OTHER]).points == {"vda/1": ("/",), **points}


SCRATCH = dataclasses.replace(volume.partition("vda", "2", 1 << 20, 1 << 20), content="ext4", uuid="s-1")


@pytest.mark.parametrize(
    ("binds", "scratch", "root"),
    [
        ("/scratch/home /home none bind 0 0\n", ("/home",), ()),
        ("/scratch/home/ /home/ none bind 0 0\n/home/ann /ann none bind\n", ("/home/", "/ann"), ()),
        ("/home/ann /ann none bind\n/scratch/home /home none bind\n", ("/ann", "/home"), ()),
        ("/scratch/disk.iso /mnt iso9660 loop\n", ("/mnt",), ()),
        ("/scratch /scratch none bind\n/scratch/x /x none bind\n", ("/x",), ()),
        ("/scratched /srv none bind\n/ /below none bind\n", (), ("/srv", "/below")),
        ("/srv /srv none bind\n", (), ("/srv",)),
        ("/one /two none bind\n/two /one none bind\n", (), ("/two", "/one")),
        ("/dev/vdx /data ext4 x\n/data/home /home none bind\n", (), ()),
        ("//server/scratch /srv cifs x\n/dev/shm /srv none bind\n", (), ()),
    ],
)
def test_a_directory_that_is_mounted_elsewhere(binds: str, scratch: tuple[str, ...], root: tuple[str, ...]) -> None:
    fstab = f"UUID=a-1 / ext4 x\n{binds}UUID=s-1 /scratch ext4 x\n"
    seen = Seen((ROOT, SCRATCH), mounts.told(fstab, ROOT, [ROOT, SCRATCH]))
    assert {name: set(each) for name, each in seen.mounts.points.items()} == {
        "vda/1": {"/", *root},
        "vda/2": {"/scratch", *scratch},
    }
    found = selection.select([["*", "!/scratch"]], seen, {"vda": 2 << 20}, 1 << 16)
    assert bool(found.left_out) is not bool(scratch)
    assert not scratch or f"it is also mounted at {', '.join(scratch)}" in found.notes[0]


LOGICAL = Volume("vg/root", 1 << 20, "ext4", "system", "l-1")
LOCKED = dataclasses.replace(volume.whole("vdd", 1 << 20), content="crypto_LUKS", uuid="d-1")


@pytest.mark.parametrize("root", [ROOT, LOGICAL])
@pytest.mark.parametrize(
    ("its", "whose"),
    [
        ("UUID=A-1", [ROOT]),
        ("UUID=l-1", [LOGICAL]),
        ('LABEL="system"', [ROOT, LOGICAL]),
        ("/dev/disk/by-uuid/a-1", [ROOT]),
        ("PARTUUID=1234-01", [ROOT]),
        ("UUID=b-1", []),
        ("UUID=elsewhere", []),
        ("LABEL=elsewhere", []),
        ("PARTUUID=1234-02", []),
        ("/dev/disk/by-label/elsewhere", []),
        ("/dev/vg/root", [LOGICAL]),
        ("/dev/mapper/vg-root", [LOGICAL]),
        ("/dev/vg/other", []),
        ("/dev/mapper/vg-other", []),
        # As the guest calls it, which tells nothing; also what lies below it, or the filter of a guest-only VM.
        ("/dev/vda1", [ROOT, LOGICAL]),
        ("/dev/sdx9", [ROOT, LOGICAL]),
        ("/dev/md0", [ROOT, LOGICAL]),
        ("/dev/disk/by-id/virtio-1", [ROOT, LOGICAL]),
        ("/dev/mapper/root", [ROOT, LOGICAL]),
        ("overlay", [ROOT, LOGICAL]),
    ],
)
def test_an_fstab_of_another_system_tells_nothing(root: Volume, its: str, whose: Sequence[Volume]) -> None:
    other = dataclasses.replace(LOGICAL, name="vg/other", label="", uuid="o-1")
    found = mounts.told(f"{its} / ext4 x\nUUID=b-1 /srv btrfs x\n", root, [ROOT, LOGICAL, other, BTRFS])
    if root in whose:
        assert found == Mounts({root.name: ("/",), "vdb": ("/srv",)})
    else:
        assert found == Mounts(problem=f"the /etc/fstab on volume {root.name} has another one at /")


def test_a_root_that_is_encrypted_beside_an_old_one() -> None:
    text = "/dev/mapper/root / ext4 x\nUUID=b-1 /srv btrfs x\n"
    assert mounts.told(text, ROOT, [ROOT, BTRFS]).points
    assert "has another one at /" in mounts.told(text, ROOT, [ROOT, BTRFS, LOCKED]).problem
    assert mounts.told("UUID=a-1 / ext4 x\n", ROOT, [ROOT, BTRFS, LOCKED]).points == {"vda/1": ("/",)}


@pytest.mark.parametrize(("kind", "its"), [("btrfs", False), ("xfs", False), ("ext3", True), ("auto", True)])
def test_a_root_of_another_kind(kind: str, its: bool) -> None:
    assert bool(mounts.told(f"/dev/vda1 / {kind} x\n", ROOT, [ROOT]).points) is its


def test_an_fstab_without_a_root() -> None:
    assert mounts.told(CACHE, ROOT, [ROOT, BTRFS]).points == {"vda/1": ("/",), "vdb": ("/var/cache",)}
