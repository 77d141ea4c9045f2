"""Which of the guest's disks is which disk of the VM: first by name, then by proof.

A name (WWN, serial, PCI address) can be shared, cut or absent, and a guest may lie: what counts is that
content read on both sides is the same, in blocks that no other candidate has.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
import time
from collections.abc import Iterator, Sequence

from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.guest.channel import ASK_SECONDS, Channel, Refused
from headstart.guest.devices import GuestDisk, GuestMap
from headstart.hypervisor.inventory import Disk
from headstart.reading import Reader
from headstart.units import KIB

#: virtio-blk cuts serial numbers at this (virtio specification, VIRTIO_BLK_T_GET_ID).
SERIAL_LENGTH = 20
#: Blocks to compare at once, how many to look at for that many that are not blank, and how often.
PROOFS = 6
TRIES = 96
ROUNDS = 4
BLOCK = 64 * KIB
#: Each may take the agent some time to read from.
CANDIDATES = 32
#: What the agent may take to prove all disks of a VM: meanwhile a backup that is due would wait.
PROVE_SECONDS = 120.0


class Unproved(Exception):
    """Not known which device of the guest the disk is; says why."""


def candidates(disk: Disk, guest: GuestMap) -> list[GuestDisk]:
    """The devices that may be the disk, by the best name that is there; of its size in any case."""
    for same in (_same_wwn, _same_serial, _same_pci):
        found = [each for each in guest.disks if each.size == disk.size and same(disk, each)]
        if found:
            return found
    return [each for each in guest.disks if each.size == disk.size]


def _same_wwn(disk: Disk, device: GuestDisk) -> bool:
    return bool(disk.wwn) and disk.wwn in device.wwn.lower()


def _same_serial(disk: Disk, device: GuestDisk) -> bool:
    return bool(disk.serial) and device.serial in (disk.serial, disk.serial[:SERIAL_LENGTH])


def _same_pci(disk: Disk, device: GuestDisk) -> bool:
    return bool(disk.pci) and disk.pci == device.pci


class Patience:
    """How long an agent is still waited for."""

    def __init__(self) -> None:
        self._left = PROVE_SECONDS

    @contextlib.contextmanager
    def waiting(self) -> Iterator[float]:
        """Seconds that one question may take. Raises ``Unproved``."""
        if self._left <= 0:
            raise Unproved(f"the agent has taken {PROVE_SECONDS:.0f} s to prove disks")
        began = time.monotonic()
        try:
            yield min(ASK_SECONDS, self._left)
        finally:
            self._left -= time.monotonic() - began


def prove(
    channel: Channel,
    disk: Disk,
    devices: Sequence[GuestDisk],
    reader: Reader,
    allocated: Blocks,
    patience: Patience | None = None,
) -> str:
    """The name of the one device whose content is the disk's, which ``reader`` reads from outside.

    ``allocated`` are blocks of ``BLOCK`` bytes that may hold something. Raises ``Unproved``, ``Lost``."""
    patience = patience or Patience()
    if not devices:
        raise Unproved("the guest has no disk of that size")
    if len(devices) > CANDIDATES:
        raise Unproved(f"the guest has {len(devices)} disks of that size")
    left = [device.name for device in devices]
    for _ in range(ROUNDS):
        key = secrets.token_bytes(16)
        samples = _samples(reader, allocated, key)
        if not samples:
            raise Unproved("it is blank: nothing tells it from another one")
        spans = list(samples)
        told = {name: _ask(channel, name, spans, key, patience) for name in left}
        still = [span for span in spans if _digest(reader, span, key) == samples[span]]
        left = [name for name in left if still and all(told[name].get(span) == samples[span] for span in still)]
        if not left:
            raise Unproved(f"what {' and '.join(told)} have there is not what it has")
        if len(left) == 1:
            return left[0]
    raise Unproved(f"{' and '.join(left)} have the same content")


def _ask(channel: Channel, device: str, spans: list[Extent], key: bytes, patience: Patience) -> dict[Extent, str]:
    """What the guest says; nothing where it cannot read its device."""
    try:
        wanted = [[span.start, span.length] for span in spans]
        with patience.waiting() as seconds:
            told = channel.ask("hash", seconds, device=device, spans=wanted, key=key.hex())
            digests = told.get("digests")
    except Refused:
        return {}
    return dict(zip(spans, digests, strict=False)) if isinstance(digests, list) else {}


def _samples(reader: Reader, allocated: Blocks, key: bytes) -> dict[Extent, str]:
    """Digests of random blocks that are not zero, no two the same."""
    found: dict[Extent, str] = {}
    source = random.SystemRandom()
    for _ in range(TRIES if allocated else 0):
        start = allocated[source.randrange(len(allocated))] * BLOCK
        span = Extent(start, min(BLOCK, reader.size - start))
        digest = _digest(reader, span, key)
        if digest and digest not in found.values():
            found[span] = digest
        if len(found) == PROOFS:
            break
    return found


def _digest(reader: Reader, span: Extent, key: bytes) -> str:
    """Of one block; empty if it is all zeroes."""
    content = bytearray(span.length)
    for piece in reader.read([span]):
        if piece.data is not None:
            at = piece.extent.start - span.start
            content[at : at + piece.extent.length] = piece.data
        piece.release()
    return hashlib.blake2b(content, digest_size=32, key=key).hexdigest() if any(content) else ""
