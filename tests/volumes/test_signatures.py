"""What a volume holds is told as blkid tells it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headstart.volumes import signatures
from headstart.volumes.volume import ReadOnlyBytes, whole
from tests.kit import filetrees

MIB = filetrees.MIB


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ext2", ("-L", "label")),
        ("ext3", ("-L", "sixteen letters!")),
        ("ext4", ("-L", "label")),
        ("xfs", ("-L", "label")),
        ("vfat", ("-n", "LABEL", "-F", "16")),
        ("vfat", ("-n", "LABEL", "-F", "32")),
        ("vfat", ()),
        ("exfat", ()),
        ("ntfs", ()),
    ],
)
def test_what_a_volume_holds_is_what_blkid_says(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    image = filetrees.make(kind, tmp_path / "image", 320 * MIB, *options)
    command: list[str | Path] = ["blkid", "-p", "-o", "export", image]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("\\ ", " ")
    expected = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    with image.open("rb") as file:

        def read(disk: str, start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        found = signatures.recognise(ReadOnlyBytes(whole("disk", 320 * MIB), read))
    assert (found.kind, found.uuid) == (expected["TYPE"], expected["UUID"])
    assert found.label == expected.get("LABEL", "").replace("\\!", "!")
