"""Which parts of a disk a qcow2 file itself has: asked of ``qemu-img map``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from headstart import errors
from headstart.extents import Extent


def allocated(path: Path) -> Iterator[Extent]:
    """Also where it has zeroes; of what stands below it nothing. For a file that nobody writes to. Raises
    ``Unreachable``."""
    node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(path)}}
    command = ["qemu-img", "map", "--force-share", "--output=json", f"json:{json.dumps(node)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise errors.Unsupported(f"qemu-img cannot be started ({error.strerror}): install qemu-utils.") from error
    if done.returncode:
        raise errors.Unreachable(f"What was written to the overlay {path} cannot be read: {done.stderr.strip()}")
    for each in json.loads(done.stdout):
        if each["present"]:
            yield Extent(each["start"], each["length"])
