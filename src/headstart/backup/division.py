"""The disks of a round among those who read them: each by this host, the agent in the guest, or appliances."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headstart.appliance.crew import Crew
from headstart.backup import slices
from headstart.backup.appliances import Foreman
from headstart.backup.contact import Contact
from headstart.backup.fill import Filling
from headstart.backup.transport import Source, Sources, Transport
from headstart.blocks import Blocks
from headstart.guest.channel import Lost, Refused
from headstart.load.throttle import Permit, ThrottledReader
from headstart.state.values import Tracked

#: An agent at the lowest priority takes some 15 ms to answer at all.
AGENT_PORTIONS = 3


def asking(source: Source, permit: Permit | None) -> Source:
    """One that asks for what it reads."""
    if permit is None:
        return source
    if source.sliced:
        return replace(source, reader=ThrottledReader(source.reader, _Coarse(permit)))
    portions = AGENT_PORTIONS if source.by is Transport.AGENT else 1
    return replace(source, reader=ThrottledReader(source.reader, permit, portions))


@dataclass(frozen=True, slots=True)
class _Coarse:
    """A permit that is asked for portions that are worth a point in time."""

    inner: Permit

    def portion(self) -> int:
        return max(self.inner.portion(), slices.PORTION)

    def wait(self, count: int) -> None:
        self.inner.wait(count)

    def check(self) -> None:
        self.inner.check()


class Readers:
    """Each disk by whom it is for. A context manager; inside, appliances may work. ``elsewhere``: what they lose is
    read by this host."""

    def __init__(self, contact: Contact, fill: Filling, sources: Sources, *, elsewhere: bool) -> None:
        self._contact = contact
        self._fill = fill
        self._elsewhere = elsewhere
        offered = {name: source.offered for name, source in sources.disks.items() if source.offered is not None}
        self._foreman = Foreman(contact, fill)
        self._crew = Crew(contact.context.repository, offered, self._foreman)
        for remote in sources.appliances if offered else ():
            self._crew.join(remote)
        #: Those that appliances have read, and how this host would.
        self._given: dict[str, tuple[Tracked, Source]] = {}
        self._by: set[Transport] = set()

    @property
    def by(self) -> set[Transport]:
        return self._by | ({Transport.APPLIANCE} if self._foreman.delivered else set())

    @property
    def stored_bytes(self) -> int:
        """By others than the writer of this host."""
        return self._crew.stored_bytes

    def disk(self, tracked: Tracked, source: Source, wanted: Blocks, permit: Permit | None) -> None:
        """``source`` as ``asking`` has it."""
        if source.by is not Transport.APPLIANCE:
            self._by.add(source.by)
            _copy(self._contact, self._fill, tracked, source, wanted)
            return
        self._given[tracked.name] = (tracked, source)
        self._rest(tracked.name, self._crew.copy(tracked.name, wanted, permit))

    def _rest(self, name: str, wanted: Blocks) -> None:
        """What no appliance has copied."""
        tracked, source = self._given[name]
        if wanted and self._elsewhere:
            self._by.add(Transport.HOST)
            _copy(self._contact, self._fill, tracked, source, wanted)
        elif wanted:
            self._contact.note(f"the rest of disk {name} remains to be copied: no appliance is left")

    def settle(self) -> None:
        """Everything counts that can."""
        for name, wanted in self._crew.settle().items():
            self._rest(name, wanted)

    def give_up(self) -> None:
        """What was copied counts, and nothing more is read."""
        self._crew.settle()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *details: object) -> None:
        self._crew.close()


def _copy(contact: Contact, fill: Filling, tracked: Tracked, source: Source, wanted: Blocks) -> None:
    """An agent that fails costs the rest of the round: what it had delivered counts."""
    inside = source.by is Transport.AGENT
    try:
        sparing = inside and bool(contact.layered([tracked.name]))
        fill.disk(tracked, source.reader, wanted, delivered=inside, sparing=sparing)
    except (Lost, Refused, slices.NotNow) as error:
        # That of a guest without a hypervisor is the machine's: what is read of it has still to be counted.
        if inside and isinstance(error, Lost):
            contact.inside.lost(error)
        contact.note(f"the rest of disk {tracked.name} remains to be copied: {error}")
