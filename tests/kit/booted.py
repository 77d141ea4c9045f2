"""Test guests that have booted already: under TCG that costs several seconds of a processor each time.

A guest without disks is booted once, and the state of its machine kept in a file. QEMU takes that in as the state of
a VM that migrates; then the guest looks for its disks, which it has never seen before, and is told the time, and what
no other guest knows. One state for each kind of machine::

    boot without disks ---> file ---> QEMU -incoming, with disks ---> rescan PCI, load the drivers of disks

A reset of such a VM is a whole boot, as ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.kit import guest


def state(machine: Sequence[str], boot: Callable[[Path], None]) -> Path:
    """The state of a machine with these options. ``boot`` writes it, once."""
    digest = hashlib.sha256("\0".join([Path(__file__).read_text(), *machine]).encode()).hexdigest()[:16]
    image = guest.build().initrd.parent
    kept = image / f"booted-{digest}"
    if not kept.exists():
        with _alone(image / "booted.lock"):
            if not kept.exists():
                written = kept.with_suffix(".new")
                boot(written)
                written.replace(kept)
    return kept


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
