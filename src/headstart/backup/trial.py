"""The transports of one VM compared: each reads the same blocks, at full speed, and nothing of it is kept.

::

    idle   a few seconds, for what guest and QEMU do anyway
    then   each transport: read, hash, compress, seal, into a repository in memory
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart import blocks, errors, repository
from headstart.appliance import addresses
from headstart.appliance.addresses import Address
from headstart.appliance.crew import Crew
from headstart.appliance.evidence import Seen
from headstart.appliance.remote import Remote
from headstart.backup import transport
from headstart.backup.contact import Contact
from headstart.backup.context import Context
from headstart.backup.meeting import meet
from headstart.backup.transport import Transport
from headstart.blocks import Blocks
from headstart.hypervisor.counters import Counters
from headstart.reading import Reader
from headstart.store.memory import MemoryStore
from headstart.transfer.pipeline import Pipeline, Stored
from headstart.units import BLOCK_SIZE, MIB

IDLE_SECONDS = 3.0
#: Blocks that lie together are read together, as they often change.
RUN = MIB // BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Figures:
    """``by``: a transport, or the address of an appliance; ``idle`` is none. Seconds of processor time of Headstart on
    this host (with what relays disks), of QEMU without its virtual CPUs, of these, and of the appliance (None: not
    known). ``latency``: of the guest's writes meanwhile, seconds, mean; None: it did not write. ``why`` there are no
    figures."""

    by: str
    read_bytes: int = 0
    seconds: float = 0.0
    host_cpu_seconds: float | None = None
    qemu_cpu_seconds: float | None = None
    guest_cpu_seconds: float | None = None
    appliance_cpu_seconds: float | None = None
    latency: float | None = None
    why: str = ""

    def json(self) -> dict[str, Any]:
        return asdict(self)


def compare(context: Context, name: str, count: int) -> list[Figures]:
    """``count`` bytes of what the VM's disks hold, drawn at random, by each of the transports of ``context``."""
    with context.journal.lock(name, "bench"), meet(context, context.journal.vm(name)) as contact:
        chosen = _chosen(contact, count)
        if not chosen:
            raise errors.Usage(f"VM '{name}' has no disk with content that the host could read while it runs.")
        found = [_idle(contact)]
        _warm(contact, chosen)
        found.append(_attempt("agent", functools.partial(_by_agent, contact, chosen)))
        found.append(_attempt("host", functools.partial(_by_host, contact, chosen)))
        for text in context.appliances:
            address = addresses.parse(text)
            found.append(_attempt(address.name, functools.partial(_by_appliance, contact, chosen, address)))
        return found


def _attempt(by: str, trial: Callable[[], Figures]) -> Figures:
    try:
        return trial()
    except errors.HeadstartError as error:
        return Figures(by, why=str(error))


def _chosen(contact: Contact, count: int) -> dict[str, Blocks]:
    """Runs of blocks at random places, of all disks that can be read from outside."""
    allocated: dict[str, Blocks] = {}
    with contact.machine.live([disk.name for disk in contact.inventory.disks]) as live:
        for name, reader in live.items():
            allocated[name] = blocks.of_extents(reader.allocated(), BLOCK_SIZE)
    places = [
        (name, first)
        for name, found in allocated.items()
        for first in range(0, found.max() + 1 if found else 0, RUN)
        if found.range_cardinality(first, first + RUN)
    ]
    random.Random(1).shuffle(places)
    drawn: dict[str, Blocks] = {}
    for name, first in places[: max(1, count // (RUN * BLOCK_SIZE))]:
        drawn.setdefault(name, Blocks()).update(allocated[name] & Blocks(range(first, first + RUN)))
    return drawn


def _idle(contact: Contact) -> Figures:
    with _measured(contact) as measured:
        time.sleep(IDLE_SECONDS)
    return measured.figures("idle", 0)


def _warm(contact: Contact, chosen: Mapping[str, Blocks]) -> None:
    """Whoever comes first would have to fetch what the others find in memory."""
    with contact.machine.live(list(chosen)) as live:
        for name, reader in live.items():
            for piece in reader.read(blocks.to_extents(chosen[name], BLOCK_SIZE, reader.size)):
                piece.release()


def _by_agent(contact: Contact, chosen: Mapping[str, Blocks]) -> Figures:
    with transport.sources(contact, chosen, Transport.AGENT) as sources:
        others = [name for name in chosen if sources.disks[name].by is not Transport.AGENT]
        if others:
            reasons = " ".join(contact.notes)
            raise errors.Unsupported(f"The agent does not read {', '.join(others)}: {reasons}.")
        return _copied(contact, chosen, "agent", {name: each.reader for name, each in sources.disks.items()})


def _by_host(contact: Contact, chosen: Mapping[str, Blocks]) -> Figures:
    with contact.machine.live(list(chosen)) as live:
        return _copied(contact, chosen, "host", live)


def _copied(contact: Contact, chosen: Mapping[str, Blocks], by: str, readers: Mapping[str, Reader]) -> Figures:
    """As a round does it; each trial in a repository of its own, where nothing is known yet."""
    read = 0
    with (
        repository.create(MemoryStore(), None) as repo,
        _measured(contact) as measured,
        repo.writer(_forget) as writer,
        Pipeline(repo, writer, _forget) as pipeline,
    ):
        for name, reader in readers.items():
            read += pipeline.copy(name, reader, blocks.to_extents(chosen[name], BLOCK_SIZE, reader.size))
    return measured.figures(by, read)


def _forget(stored: list[Stored]) -> None:
    """Nothing is kept."""


def _by_appliance(contact: Contact, chosen: Mapping[str, Blocks], address: Address) -> Figures:
    overseer = _Counting()
    with contact.machine.live(list(chosen)) as live, repository.create(MemoryStore(), None) as repo:
        found = {name: transport.offered(contact.disk(name), reader) for name, reader in live.items()}
        disks = {name: offered for name, offered in found.items() if offered is not None}
        if len(disks) < len(found):
            lacking = ", ".join(name for name in found if name not in disks)
            raise errors.Unsupported(f"Disk {lacking} cannot be offered to others.")
        with Remote(address, repo, trial=True) as remote, Crew(repo, disks, overseer, certain=True) as crew:
            crew.join(remote)
            with _measured(contact, crew.relays) as measured:
                for name, wanted in chosen.items():
                    crew.copy(name, wanted)
                crew.settle()
            cpu = crew.figures().get(address.name, {}).get("cpu_seconds")
    if overseer.why:
        raise errors.Unreachable(overseer.why)
    read = sum(blocks.total_bytes(each, BLOCK_SIZE, disks[name].size) for name, each in chosen.items())
    return measured.figures(address.name, read, float(cpu) if isinstance(cpu, int | float) else None)


class _Counting:
    """``headstart.appliance.crew.Overseer`` of a trial."""

    why = ""

    def seen(self, found: Seen) -> None:
        """Nothing is kept."""

    def lost(self, name: str, why: str) -> None:
        self.why = why

    def beat(self) -> None:
        """Nobody waits."""


@dataclass(slots=True)
class _Measured:
    """Before and after."""

    counters: tuple[Counters, Counters] | None = None
    ours: float = 0.0
    qemu: float | None = None
    seconds: float = 0.0

    def figures(self, by: str, read: int, appliance: float | None = None) -> Figures:
        assert self.counters is not None, "left by now"
        before, after = self.counters
        cpu = after.cpu_seconds - before.cpu_seconds if before.cpu_seconds and after.cpu_seconds else None
        qemu = max(0.0, self.qemu - cpu) if self.qemu is not None and cpu is not None else None
        return Figures(by, read, self.seconds, self.ours, qemu, cpu, appliance, _latency(before, after))


@contextlib.contextmanager
def _measured(contact: Contact, relays: Sequence[int] = ()) -> Iterator[_Measured]:
    """``relays``: processes that work for us meanwhile."""
    found = _Measured()
    before, ours, began = contact.machine.counters(), _ours(relays), time.monotonic()
    qemu = _process(before.pid)
    yield found
    found.seconds, found.ours = time.monotonic() - began, _ours(relays) - ours
    after = contact.machine.counters()
    spent = _process(after.pid)
    found.counters = before, after
    found.qemu = spent - qemu if spent is not None and qemu is not None else None


def _ours(relays: Sequence[int]) -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime + sum(_process(each) or 0.0 for each in relays)


def _process(pid: int | None) -> float | None:
    """Processor time of a process (proc(5), stat: utime and stime, in ticks)."""
    if pid is None:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _latency(before: Counters, after: Counters) -> float | None:
    writes = sum(after.disks[name].writes - before.disks[name].writes for name in after.disks if name in before.disks)
    spent = sum(
        after.disks[name].write_seconds - before.disks[name].write_seconds
        for name in after.disks
        if name in before.disks
    )
    return spent / writes if writes else None
