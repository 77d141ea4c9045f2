"""What e2fsprogs says of the partition in a restored image of ``disks.make_ext4``."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit import disks


def assert_clean(image: Path) -> None:
    """As after an unmount: nothing to replay, nothing to repair."""
    _check(f"{image}?offset={disks.PARTITION_OFFSET}")


def assert_recovers(image: Path) -> None:
    """As after a power cut: the journal is replayed, and then nothing is wrong."""
    # e2fsck opens the file again after a replay, and forgets the offset.
    partition = image.with_suffix(".ext4")
    skip = f"skip={disks.PARTITION_OFFSET}"
    _run(0, "dd", f"if={image}", f"of={partition}", skip, "iflag=skip_bytes", "bs=1M", "conv=sparse", "status=none")
    _run(1, "/sbin/e2fsck", "-p", str(partition))
    _check(str(partition))


def _check(partition: str) -> None:
    assert "needs_recovery" not in _run(0, "/sbin/dumpe2fs", "-h", partition)
    _run(0, "/sbin/e2fsck", "-fn", partition)


def _run(most: int, *command: str) -> str:
    """e2fsck ends with 1 when it has repaired everything."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode <= most, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
