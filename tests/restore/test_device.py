"""Block devices: who else may have them, and how zeroes get there. The devices are loop devices."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.restore import imagelock
from headstart.restore.device import BlockDevice, is_device, refuse_misspelt
from headstart.units import MIB
from tests.restore import stored

SIZE = 4 * MIB


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    with stored.loop_device(tmp_path / "backing", SIZE) as found:
        yield found


def test_a_device_that_is_too_small_is_refused(device: Path) -> None:
    with pytest.raises(errors.TargetRefused, match="has 4194304 bytes, and the disk needs 4194816"):
        BlockDevice(device, SIZE + 512)


@pytest.mark.parametrize("name", ["headstart-typo", "headstart-typo/vda.qcow2", "mapper/headstart-typo"])
def test_a_name_that_no_device_has_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev")
    for folder in (Path("/dev"), tmp_path / "link"):
        with pytest.raises(errors.TargetRefused, match=f"no block device {folder / name}"):
            refuse_misspelt(folder / name)


def test_files_are_no_devices(device: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(device)
    for place in (device, tmp_path / "link", tmp_path / "disk.raw", Path("/dev/shm/disk.raw"), Path("/devices")):
        refuse_misspelt(place)


def test_a_device_that_is_mounted_is_refused(device: Path, tmp_path: Path) -> None:
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", device], check=True)
    (tmp_path / "mounted").mkdir()
    done = subprocess.run(["mount", device, tmp_path / "mounted"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        with pytest.raises(errors.TargetRefused, match="is mounted"):
            BlockDevice(device, SIZE)
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_in_use_by_qemu(device: Path, tmp_path: Path, read_only: bool) -> None:
    export = ["qemu-nbd", "-f", "raw", "-k", str(tmp_path / "socket"), "-t", str(device)]
    with subprocess.Popen([*export, "-r"] if read_only else export) as server:
        try:
            _wait_for(tmp_path / "socket")
            with pytest.raises(errors.TargetRefused, match="in use by QEMU"):
                BlockDevice(device, SIZE)
        finally:
            server.terminate()
    with BlockDevice(device, SIZE):
        pass


def test_qemu_waits_for_us(device: Path) -> None:
    with BlockDevice(device, SIZE):
        for read_only in ([], ["-r"]):
            command = ["qemu-io", "-f", "raw", *read_only, "-c", "read 0 512", str(device)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode != 0
            assert "lock" in done.stderr


def test_a_link_to_a_device_is_one(device: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(device)
    assert is_device(tmp_path / "link")
    assert not is_device(tmp_path / "missing")
    assert not is_device(tmp_path)


def test_a_device_that_cannot_zero_gets_zeroes_written(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with BlockDevice(device, SIZE) as target:
        target.zero(Extent(65536, SIZE - 65536 - 512))
        target.finish()
    found = device.read_bytes()
    assert found[65536:-512].count(0) == SIZE - 65536 - 512
    assert 0 not in found[:65536]
    assert 0 not in found[-512:]


def test_an_image_file_in_use_is_seen_too(tmp_path: Path) -> None:
    """The locks are those of QEMU, on whatever it opens."""
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    with subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", tmp_path / "socket", "-t", image]) as server:
        try:
            _wait_for(tmp_path / "socket")
            with image.open("r+b") as file:
                assert not imagelock.hold(file.fileno())
        finally:
            server.terminate()
    with image.open("r+b") as file:
        assert imagelock.hold(file.fileno())


def _wait_for(socket: Path) -> None:
    """Until it answers: it listens before it has opened, and locked, its image."""
    for _ in range(200):
        asked = subprocess.run(["nbdinfo", "--size", f"nbd+unix:///?socket={socket}"], capture_output=True)
        if asked.returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError("qemu-nbd did not come up")
