"""Who reads the blocks of a round: the agent inside the guest, or this host from outside.

::

    agent   answers, and the disk is proved to be this device of its   ->   read in the guest
    host    everything else that can be read from outside

An agent that vanishes in the middle of a round costs the rest of that round: it remains to be copied. One that
delivered false blocks reads nothing until somebody trusts it again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from headstart import blocks, errors
from headstart.backup.contact import Contact
from headstart.blocks import Blocks
from headstart.guest.agent import Agent
from headstart.guest.channel import Lost, Refused
from headstart.guest.mapping import Unproved
from headstart.hypervisor.contract import Disk, PointRequest
from headstart.reading import Reader
from headstart.units import BLOCK_SIZE

#: Blocks of a disk that only a point in time shows.
GLIMPSES = 64


class Distrusted(errors.HeadstartError):
    """The agent delivered false blocks, and nobody has said since that it may be used."""


class Transport(Enum):
    """What the user wants. ``AUTO`` takes the agent where it answers; ``AGENT`` fails where none does."""

    AUTO = "auto"
    AGENT = "agent"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Source:
    """A disk that can be read, and by whom (``AGENT`` or ``HOST``)."""

    reader: Reader
    by: Transport


@contextlib.contextmanager
def sources(contact: Contact, disks: Mapping[str, Blocks], wanted: Transport) -> Iterator[Mapping[str, Source]]:
    """Readers of the running disks. If ``AGENT`` is wanted, raises ``Unreachable`` where it does not answer, and
    ``Distrusted``. A disk that cannot be read from outside is read by the agent also with ``HOST``; one that nobody can
    read is left out."""
    inside = {name: found for name, found in disks.items() if _is_for_agent(contact.disk(name), wanted)}
    agent = _agent(contact, wanted) if inside else None
    proved = _prove(contact, agent, inside) if agent else frozenset()
    with contact.machine.live([name for name in disks if name not in proved]) as live:
        found = {name: Source(live[name], Transport.HOST) for name in disks if name in live}
        if agent is not None:
            found |= {name: Source(agent.reader(contact.disk(name)), Transport.AGENT) for name in proved}
        yield found


def _is_for_agent(disk: Disk, wanted: Transport) -> bool:
    """What nothing records is read whole each time: better outside, where that costs the guest less."""
    return bool(disk.unreadable) or wanted is Transport.AGENT or (wanted is Transport.AUTO and not disk.untracked)


def devices(contact: Contact) -> dict[str, str]:
    """The guest's device of every disk for which it can be proved. Raises what ``Inside.agent`` raises."""
    agent = contact.inside.agent()
    _prove(contact, agent, {disk.name: blocks.everything(disk.size, BLOCK_SIZE) for disk in contact.inventory.disks})
    return dict(agent.proved)


def _prove(contact: Contact, agent: Agent, disks: Mapping[str, Blocks]) -> frozenset[str]:
    """Those of the disks of which it is known which device of the guest they are."""
    found = set()
    with contact.machine.live(list(disks)) as live:
        for name in live:
            allocated = blocks.of_extents(live[name].allocated(), BLOCK_SIZE)
            if _proved(contact, agent, name, Proof(live[name], allocated), disks[name]):
                found.add(name)
        rest = [name for name in disks if name not in live]
    # A point in time and running disks are not read at once.
    found |= {name for name in rest if _proved(contact, agent, name, None, disks[name])}
    return frozenset(found)


def _agent(contact: Contact, wanted: Transport) -> Agent | None:
    try:
        _require_trusted(contact)
        return contact.inside.agent()
    except errors.HeadstartError as error:
        if wanted is Transport.AGENT:
            raise
        if contact.inside.expected:
            contact.note(f"the agent in the guest is not used: {error}")
        return None


def _require_trusted(contact: Contact) -> None:
    found = contact.distrust
    if found is not None:
        since = datetime.fromtimestamp(found.since).astimezone()
        raise Distrusted(
            f"It is not trusted since {since:%Y-%m-%d %H:%M}, because {found.reason}."
            f" 'headstart agent trust {contact.name}' uses it again.",
            vm=contact.name,
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """A view of a disk from outside, and blocks of ``BLOCK_SIZE`` where there may be something to see."""

    reader: Reader
    within: Blocks


def _proved(contact: Contact, agent: Agent, name: str, proof: Proof | None, wanted: Blocks) -> bool:
    """Whether the agent's device is known. The reason why not is told."""
    disk = contact.disk(name)
    try:
        if name in agent.proved:
            return True
        with contextlib.ExitStack() as stack:
            seen = proof or stack.enter_context(_glimpse(contact, disk, wanted))
            agent.prove(disk, seen.reader, seen.within)
        return True
    except Unproved as error:
        contact.note(f"disk {name} is not read by the agent: which device of the guest it is cannot be proved: {error}")
    except (Lost, Refused) as error:
        if isinstance(error, Lost):
            contact.inside.lost(error)
        contact.note(f"disk {name} is not read by the agent: {error}")
    return False


@contextlib.contextmanager
def _glimpse(contact: Contact, disk: Disk, wanted: Blocks) -> Iterator[Proof]:
    """A few blocks of a disk that cannot be read while it runs: by a point in time of just those. The first block has
    the partition table, with an id of its own."""
    number = min(GLIMPSES, len(wanted))
    seen = Blocks([0]) | Blocks(wanted[place] for place in random.SystemRandom().sample(range(len(wanted)), number))
    request = PointRequest((), (), {disk.name: seen}, freeze=False)
    try:
        with contact.machine.take(request) as point:
            yield Proof(point.reader(disk.name), seen)
    except (errors.Busy, errors.PointLost, errors.NoSpace, errors.NotFound) as error:
        raise Unproved(str(error)) from error
