"""vmdk and vhdx, which QEMU writes for us."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore import image, restoration
from headstart.restore.order import Format, Order, Wish
from headstart.restore.restoration import Report
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.restore import stored

CONTENT = stored.content(*(0 if block % 9 == 4 else block % 200 for block in range(1, 300)), tail=1024)
EMPTY = bytes(1 << 20)
FORMATS: tuple[Format, ...] = ("vmdk", "vhdx")


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with stores.new_repository(LocalStore(tmp_path / "repository")) as made:
        yield made


@pytest.fixture
def manifest(repo: Repository) -> Manifest:
    return stored.store_snapshot(repo, {"data": CONTENT, "empty": EMPTY})


def restore(repo: Repository, manifest: Manifest, order: Order, progress: image.Progress = lambda *_: None) -> Report:
    return restoration.restore(repo, manifest, order, progress)


def compare(one: Path, one_format: str, other: Path, other_format: str) -> None:
    command = ["qemu-img", "compare", "-f", one_format, "-F", other_format, str(one), str(other)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("image_format", FORMATS)
def test_they_hold_what_a_raw_file_holds(
    repo: Repository, manifest: Manifest, tmp_path: Path, image_format: Format
) -> None:
    report = restore(repo, manifest, Order(tmp_path / "out", format=image_format))
    assert [disk.format for disk in report.disks] == [image_format] * 2
    (tmp_path / "data").write_bytes(CONTENT)
    (tmp_path / "empty").write_bytes(EMPTY)
    for disk in report.disks:
        compare(disk.path, image_format, tmp_path / disk.name, "raw")
        subprocess.run(["qemu-img", "check", "-q", "-f", image_format, disk.path], check=True)
        assert disk.path.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"data.{image_format}", f"empty.{image_format}"}
    # The same again finds them there.
    again = restore(repo, manifest, Order(tmp_path / "out", format=image_format))
    assert len(again.notes) == 2 and all("with the same content" in note for note in again.notes)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("place", [5, 290])
def test_one_that_differs_is_not_ours(
    repo: Repository, manifest: Manifest, tmp_path: Path, image_format: Format, place: int
) -> None:
    """In a block with data, and in one without."""
    order = Order(tmp_path, (Wish("data", tmp_path / f"disk.{image_format}"),))
    restore(repo, manifest, order)
    file = tmp_path / f"disk.{image_format}"
    write = f"write -P 7 {place * stored.BLOCK} 512"
    subprocess.run(["qemu-io", "-f", image_format, "-c", write, file], check=True, capture_output=True)
    with pytest.raises(errors.TargetRefused, match="exists and is not overwritten"):
        restore(repo, manifest, order)


def test_a_killed_restore_begins_anew(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    order = Order(tmp_path / "out", (Wish("data"),), "vmdk")

    def die(what: str, done: int, total: int) -> None:
        if what == "data" and done > total // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if process == 0:
        try:
            restore(repo, manifest, order, die)
        finally:
            os._exit(1)
    os.waitpid(process, 0)
    assert {path.name for path in order.directory.iterdir()} == {"data.vmdk.part", "data.vmdk.part.image"}
    restore(repo, manifest, order)
    (tmp_path / "data").write_bytes(CONTENT)
    compare(order.directory / "data.vmdk", "vmdk", tmp_path / "data", "raw")
    assert {path.name for path in order.directory.iterdir()} == {"data.vmdk"}


def test_a_failed_one_leaves_nothing(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    def fail(what: str, done: int, total: int) -> None:
        if what == "data" and done > total // 2:
            raise errors.StoreFailed("The network is gone.")

    with pytest.raises(errors.StoreFailed):
        restore(repo, manifest, Order(tmp_path / "out", format="vhdx"), fail)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_foreign_image_is_not_touched(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "data.vmdk.part.image").write_bytes(b"precious")
    with pytest.raises(errors.TargetRefused, match=r"data\.vmdk\.part\.image exists"):
        restore(repo, manifest, Order(tmp_path, (Wish("data"),), "vmdk"))
    assert (tmp_path / "data.vmdk.part.image").read_bytes() == b"precious"


@pytest.mark.parametrize("missing", ["qemu-img", "qemu-nbd"])
def test_without_qemus_tools(
    repo: Repository, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in {"setpriv", "qemu-img", "qemu-nbd"} - {missing}:
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(errors.Unsupported, match=rf"{missing} cannot be started.*install qemu-utils"):
        restore(repo, manifest, Order(tmp_path / "out", format="vmdk"))
    assert list((tmp_path / "out").iterdir()) == []
