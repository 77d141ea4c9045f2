"""Mount points, as the fstab of the one system on the disks has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headstart.volumes import mounts, survey, volume
from headstart.volumes.looker import Looker
from headstart.volumes.mounts import Mounts
from headstart.volumes.selection import Seen
from tests.kit import layouts
from tests.volumes.test_lvm import Bytes


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


ROOT = dataclasses.replace(volume.partition("vda", "1", 0, 1 << 20), content="ext4", label="system", uuid="a-1")
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
