"""A snapshot into a directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore import image, restoration
from headstart.restore.order import Order, Wish, parse_wish
from headstart.restore.restoration import Report
from headstart.store.local import LocalStore
from tests.kit import compare, stores
from tests.restore import stored

SYSTEM = stored.content(1, 0, 0, 2, 3)
DATA = stored.content(0, 7, 7, 0, tail=1536)
FILES = {"definition": b"qemu-system-x86_64 -m 256", "uefi-variables": b"\xff" * 1000}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repo(folder: Path) -> Iterator[Repository]:
    with stores.new_repository(LocalStore(folder)) as made:
        yield made


@pytest.fixture
def manifest(repo: Repository) -> Manifest:
    return stored.store_snapshot(repo, {"system": SYSTEM, "data": DATA}, FILES)


def restore(repo: Repository, manifest: Manifest, order: Order) -> Report:
    return restoration.restore(repo, manifest, order, lambda *_: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_everything_goes_into_the_directory(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    report = restore(repo, manifest, Order(tmp_path / "a" / "b", format="raw"))
    where = tmp_path / "a" / "b"
    assert names(where) == ["data.raw", "definition.txt", "domain.xml", "system.raw", "uefi-variables.fd"]
    assert (where / "system.raw").read_bytes() == SYSTEM
    assert (where / "data.raw").read_bytes() == DATA
    assert (where / "definition.txt").read_bytes() == FILES["definition"]
    assert (where / "uefi-variables.fd").read_bytes() == FILES["uefi-variables"]
    assert report.snapshot == manifest.id
    assert [(disk.name, disk.size, disk.data_bytes) for disk in report.disks] == [
        ("system", len(SYSTEM), 3 * stored.BLOCK),
        ("data", len(DATA), 2 * stored.BLOCK + 1536),
    ]


def test_qcow2_is_the_default(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    report = restore(repo, manifest, Order(tmp_path / "out"))
    assert {disk.format for disk in report.disks} == {"qcow2"}
    with compare.as_raw(tmp_path / "out" / "data.qcow2", "qcow2") as raw:
        assert raw.read_bytes() == DATA


def test_a_definition_in_xml_is_named_so(repo: Repository, tmp_path: Path) -> None:
    manifest = stored.store_snapshot(repo, {}, {"definition": b" <domain/>"})
    restore(repo, manifest, Order(tmp_path / "out"))
    assert names(tmp_path / "out") == ["definition.xml"]  # which is none, so that there is no domain.xml


def test_single_disks_come_without_the_rest(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    restore(repo, manifest, Order(tmp_path / "out", (Wish("data"),), "raw"))
    assert names(tmp_path / "out") == ["data.raw"]


def test_a_target_of_its_own(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    restore(repo, manifest, Order(tmp_path / "out", (Wish("data", tmp_path / "elsewhere.img"),)))
    assert (tmp_path / "elsewhere.img").read_bytes() == DATA
    assert not (tmp_path / "out").exists()


def test_a_block_device(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    with stored.loop_device(tmp_path / "backing", 2 * len(SYSTEM)) as device:
        wishes = (Wish("system", device), Wish("data"))
        report = restore(repo, manifest, Order(tmp_path / "out", wishes, "qcow2"))
        assert device.read_bytes() == SYSTEM.ljust(2 * len(SYSTEM), b"\0")
    assert [disk.format for disk in report.disks] == ["device", "qcow2"]


def test_a_device_that_is_not_there_does_not_become_a_file(repo: Repository, manifest: Manifest) -> None:
    wish = Wish(manifest.disks[0].name, Path("/dev/headstart-typo"))
    for order in (Order(Path("/tmp"), (wish,)), Order(Path("/dev/headstart-typo"))):
        with pytest.raises(errors.TargetRefused, match="There is no block device /dev/headstart-typo"):
            restore(repo, manifest, order)
    assert not list(Path("/dev").glob("headstart*"))


def test_one_device_for_two_disks_is_refused(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    with stored.loop_device(tmp_path / "backing", len(SYSTEM)) as device:
        (tmp_path / "link").symlink_to(device)
        before = device.read_bytes()
        with pytest.raises(errors.TargetRefused, match="in use"):
            restore(repo, manifest, Order(tmp_path, (Wish("system", device), Wish("data", tmp_path / "link"))))
        assert device.read_bytes() == before


@pytest.mark.parametrize("name", ["data.raw", "uefi-variables.fd", "data.raw.part"])
def test_nothing_is_overwritten(repo: Repository, manifest: Manifest, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"precious")
    with pytest.raises(errors.TargetRefused, match="exists"):
        restore(repo, manifest, Order(tmp_path / "out", format="raw"))
    assert names(tmp_path / "out") == [name]
    assert (tmp_path / "out" / name).read_bytes() == b"precious"


def test_files_that_are_there_already_are_kept(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    """A killed restore had written them."""
    (tmp_path / "definition.txt").write_bytes(FILES["definition"])
    before = (tmp_path / "definition.txt").stat().st_ino
    report = restore(repo, manifest, Order(tmp_path, format="raw"))
    assert report.notes == (f"{tmp_path}/definition.txt was there already, with the same content",)
    assert {path.name for path in report.files} == {"definition.txt", "domain.xml", "uefi-variables.fd"}
    assert (tmp_path / "definition.txt").stat().st_ino == before
    assert (tmp_path / "data.raw").read_bytes() == DATA


def test_other_files_in_the_directory_do_not_matter(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    restore(repo, manifest, Order(tmp_path))
    assert "data.qcow2" in names(tmp_path)


def test_a_file_instead_of_the_directory(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(errors.TargetRefused):
        restore(repo, manifest, Order(tmp_path / "out"))


def test_an_unknown_disk(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match=r"no disk 'sda'\. It has: system, data\."):
        restore(repo, manifest, Order(tmp_path / "out", (Wish("sda"),)))
    with pytest.raises(errors.Usage, match="named twice"):
        restore(repo, manifest, Order(tmp_path / "out", (Wish("data"), Wish("data"))))
    assert not (tmp_path / "out").exists()


def test_names_lead_nowhere_else(repo: Repository, tmp_path: Path) -> None:
    manifest = stored.store_snapshot(repo, {"../../evil": SYSTEM, ".hidden": DATA}, {"../x": b"content"})
    restore(repo, manifest, Order(tmp_path / "out", format="raw"))
    assert names(tmp_path / "out") == ["_.._evil.raw", "_x", "hidden.raw"]


def test_damage_keeps_only_the_damaged_disk(repo: Repository, folder: Path, tmp_path: Path) -> None:
    first = stored.store_snapshot(repo, {"first": SYSTEM})
    stored.damage_packs(folder)
    with stores.reopened(repo) as again:
        second = stored.store_snapshot(again, {"second": DATA}, FILES)
    both = Manifest(
        **{name: getattr(second, name) for name in second.__slots__} | {"disks": first.disks + second.disks}
    )
    with stores.reopened(repo) as again, pytest.raises(errors.Damaged, match="Disk first, bytes 0 to 65535") as damaged:
        restore(again, both, Order(tmp_path / "out", format="raw"))
    assert names(tmp_path / "out") == ["definition.txt", "domain.xml", "second.raw", "uefi-variables.fd"]
    assert (tmp_path / "out" / "second.raw").read_bytes() == DATA
    assert str(tmp_path / "out" / "second.raw") in str(damaged.value)


def test_an_interrupted_restore_leaves_nothing(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restoration.restore(repo, manifest, Order(tmp_path / "out", (Wish("data"), Wish("system"))), interrupt)
    assert names(tmp_path / "out") == []


def test_no_space_is_told_before_anything_is_written(
    repo: Repository, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = Blocks()
    everything.add_range(0, 1 << 27)
    monkeypatch.setattr(image, "survey", lambda *_: everything)
    huge = replace(manifest, disks=tuple(replace(disk, size=1 << 43) for disk in manifest.disks))
    with pytest.raises(errors.NoSpace, match="the restore needs"):
        restore(repo, huge, Order(tmp_path / "out", format="raw"))
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("text", "wish"),
    [("sda", Wish("sda")), ("sda=/dev/vg/lv", Wish("sda", Path("/dev/vg/lv"))), ("a=b=c", Wish("a", Path("b=c")))],
)
def test_wishes_name_a_disk_and_its_target(text: str, wish: Wish) -> None:
    assert parse_wish(text) == wish


@pytest.mark.parametrize("text", ["", "=x", "sda="])
def test_what_is_no_wish_is_refused(text: str) -> None:
    with pytest.raises(errors.Usage, match="DISK=TARGET"):
        parse_wish(text)
