"""One volume of a snapshot by itself: its bytes, and nothing where there is none such."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.repository import Repository
from headstart.repository.manifest import Excluded, Manifest
from headstart.restore import volumes
from headstart.restore.files import guestpath
from headstart.restore.files.contents import Contents
from headstart.restore.volumes import Wish
from tests.kit import layouts, stores
from tests.restore import stored

MIB = 1 << 20
FSTAB = "LABEL=system / ext4 defaults 0 1\nLABEL=scratch /var/tmp ext4 defaults 0 0\n"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return layouts.system(tmp_path_factory.mktemp("image"), FSTAB).read_bytes()


@pytest.fixture
def repo() -> Repository:
    return stores.new_repository()


@pytest.fixture
def manifest(repo: Repository, image: bytes) -> Manifest:
    return stored.store_snapshot(repo, {"vda": image})


def restore(repo: Repository, manifest: Manifest, folder: Path, *wishes: str) -> list[Path]:
    given = tuple(map(volumes.parse_wish, wishes))
    return [disk.path for disk in volumes.restore(repo, manifest, folder, given, lambda *_: None).disks]


@pytest.mark.parametrize("named", ["/var/tmp", "/var/tmp/", "vda/3", "LABEL=scratch", "label:scratch"])
def test_by_each_of_its_names(repo: Repository, manifest: Manifest, image: bytes, tmp_path: Path, named: str) -> None:
    [made] = restore(repo, manifest, tmp_path / "new", named)
    start, length = layouts.SCRATCH
    assert made == tmp_path / "new" / "vda_3.raw"
    assert made.read_bytes() == image[start * MIB : (start + length) * MIB]
    assert made.stat().st_blocks * 512 < length * MIB, "what is zeroes is a hole"


def test_two_with_targets(repo: Repository, manifest: Manifest, image: bytes, tmp_path: Path) -> None:
    made = restore(repo, manifest, tmp_path, f"/={tmp_path / 'root'}", f"LABEL=paging={tmp_path / 'swap'}")
    for path, (start, length) in zip(made, (layouts.ROOT, layouts.SWAP), strict=True):
        assert path.read_bytes() == image[start * MIB : (start + length) * MIB]


def test_a_doubt_where_it_lies_is_told(repo: Repository, image: bytes, tmp_path: Path) -> None:
    manifest = stored.store_snapshot(repo, {"vda": image[: -33 * 512] + bytes(33 * 512)})
    done = volumes.restore(repo, manifest, tmp_path, (Wish("vda/3"),), lambda *_: None)
    assert len(done.notes) == 1 and done.notes[0].startswith("vda/3: ")
    with Contents(repo, manifest) as contents:
        contents.find(guestpath.parse("c0ffee:vda/3:/"))
        assert set(done.notes) <= set(contents.notes)


def test_wishes_name_a_volume_and_its_target() -> None:
    assert volumes.parse_wish("/srv") == Wish("/srv")
    assert volumes.parse_wish("vg/db=/tmp/x=y") == Wish("vg/db", Path("/tmp/x=y"))
    assert volumes.parse_wish("LABEL=a=/tmp/x") == Wish("LABEL=a", Path("/tmp/x"))
    assert volumes.parse_wish("PARTUUID=1234-01") == Wish("PARTUUID=1234-01")
    for wrong in ("", "=x", "/srv="):
        with pytest.raises(errors.Usage, match="VOLUME=TARGET"):
            volumes.parse_wish(wrong)


def test_what_is_not_there(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(
        errors.NotFound, match=r"no volume '/srv'. It has: vda/1 \(/\), vda/2 \(swap\), vda/3 \(/var/tmp\)"
    ):
        restore(repo, manifest, tmp_path / "new", "/srv")
    with pytest.raises(errors.Usage, match="Several volumes are called"):
        restore(repo, manifest, tmp_path / "new", "vda/*")
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(errors.TargetRefused):
        restore(repo, manifest, tmp_path, f"/={tmp_path / 'there'}")
    assert (tmp_path / "there").read_bytes() == b"mine"
    with pytest.raises(errors.TargetRefused, match="There is no block device /dev/headstart-typo"):
        restore(repo, manifest, tmp_path, "/=/dev/headstart-typo")


def test_a_root_that_was_left_out(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    told = Excluded("vda/9", "", "", ("/",), "", (Extent(0, MIB),))
    blank = dataclasses.replace(manifest.disks[0], root=None, excluded=(told,))
    with pytest.raises(errors.NotFound, match=r"vda/9 is not in snapshot .* only others"):
        restore(repo, dataclasses.replace(manifest, disks=(blank,)), tmp_path, "/")


@pytest.mark.parametrize("named", ["/var/tmp", "vda/3"])
def test_what_was_left_out(repo: Repository, manifest: Manifest, tmp_path: Path, named: str) -> None:
    start, length = layouts.SCRATCH
    told = Excluded("vda/3", "ext4", "scratch", ("/var/tmp",), "!label:scratch", (Extent(start * MIB, length * MIB),))
    without = dataclasses.replace(manifest, disks=(dataclasses.replace(manifest.disks[0], excluded=(told,)),))
    with pytest.raises(errors.NotFound, match="it was left out by !label:scratch"):
        restore(repo, without, tmp_path / "new", named)
