"""Who reads the blocks of a round: the agent inside the guest, an appliance, or this host from outside.

::

    agent       answers, and the disk is proved to be this device of its   ->   read in the guest
    appliance   answers, and the disk can be offered to it over NBD        ->   read and stored elsewhere
    host        everything else that can be read from outside

An agent that vanishes in the middle of a round costs the rest of that round: it remains to be copied. What an appliance
that vanishes has not stored the others read, else this host. Who delivered false blocks reads nothing until somebody
trusts it again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from headstart import blocks, errors
from headstart.appliance.crew import Offered
from headstart.appliance.remote import Remote
from headstart.backup import appliances
from headstart.backup.contact import Contact
from headstart.backup.slices import SlicedReader
from headstart.blocks import Blocks
from headstart.guest.agent import Agent
from headstart.guest.channel import Lost, Refused
from headstart.guest.mapping import Unproved
from headstart.hypervisor.contract import LiveReader, PointRequest, Spells
from headstart.hypervisor.inventory import Disk
from headstart.reading import Reader
from headstart.units import BLOCK_SIZE

#: Blocks of a disk that only a point in time shows.
GLIMPSES = 64


class Distrusted(errors.HeadstartError):
    """The agent delivered false blocks, and nobody has said since that it may be used."""


class Transport(Enum):
    """What the user wants. ``AUTO`` is ``BEST``; one alone fails where it does not answer."""

    AUTO = "auto"
    AGENT = "agent"
    HOST = "host"
    APPLIANCE = "appliance"


#: One, or several in the order in which they are tried.
Wanted = Transport | tuple[Transport, ...]
BEST = (Transport.APPLIANCE, Transport.AGENT, Transport.HOST)


def ways(wanted: Wanted) -> tuple[Transport, ...]:
    """What is wanted, in the order in which it is tried."""
    if isinstance(wanted, tuple):
        return wanted
    return BEST if wanted is Transport.AUTO else (wanted,)


@dataclass(frozen=True, slots=True)
class Source:
    """A disk that can be read, and by whom. Of one that is for appliances, ``reader`` is the host's own."""

    reader: Reader
    by: Transport
    #: Where appliances find it.
    offered: Offered | None = None
    #: Each question costs a point in time.
    sliced: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """By disk; and the appliances that wait for the disks that are for them."""

    disks: Mapping[str, Source]
    appliances: tuple[Remote, ...] = ()


@contextlib.contextmanager
def sources(contact: Contact, disks: Mapping[str, Blocks], wanted: Wanted) -> Iterator[Sources]:
    """Readers of the running disks. If the agent alone is wanted, raises ``Unreachable`` where it does not answer, and
    ``Distrusted``; if appliances alone are, ``Unreachable`` where none answers. A disk that cannot be read from outside
    is read by the agent also with ``HOST``; one that nobody can read is left out."""
    order = ways(wanted)
    if contact.vm.guest_only:
        # There is nobody else to compare it with: what the audit finds false is no reason to leave it to others.
        # Whoever paces a round looks at the guest through the agent that is connected: nobody else sees it.
        contact.inside.agent()
        with contact.machine.live(list(disks)) as live:
            yield Sources({name: Source(live[name], Transport.HOST) for name in live}, ())
        return
    with contextlib.ExitStack() as stack:
        hired = _hire(contact, order, stack)
        order = tuple(each for each in order if hired or each is not Transport.APPLIANCE)
        inside = {name: found for name, found in disks.items() if _is_for_agent(contact.disk(name), order)}
        agent = _agent(contact, order) if inside else None
        proved = _prove(contact, agent, inside) if agent else frozenset()
        live = stack.enter_context(contact.machine.live([name for name in disks if name not in proved]))
        found = {name: _outside(contact, name, live[name], hired) for name in disks if name in live}
        if agent is not None:
            found |= {name: Source(agent.reader(contact.disk(name)), Transport.AGENT) for name in proved}
        if Transport.HOST in order:
            # Last: what is read of others is old by a moment less.
            rest = [contact.disk(name) for name in disks if name not in found]
            size = contact.context.repository.block_size
            found |= {
                each.name: Source(SlicedReader(contact.machine, each, size), Transport.HOST, sliced=True)
                for each in rest
                if each.glimpsed
            }
        yield Sources(found, hired)


def _hire(contact: Contact, order: tuple[Transport, ...], stack: contextlib.ExitStack) -> tuple[Remote, ...]:
    """Where appliances come before this host. They are let go with ``stack``."""
    chosen = Transport.APPLIANCE in order[: order.index(Transport.HOST) if Transport.HOST in order else None]
    hired = appliances.hire(contact) if chosen else []
    for remote in hired:
        stack.enter_context(remote)
    if order == (Transport.APPLIANCE,) and not hired:
        reasons = " ".join(f"{note[:1].upper()}{note[1:]}." for note in contact.notes if "appliance" in note)
        raise errors.Unreachable(f"No appliance can be used. {reasons or 'Name one with --appliance.'}")
    return tuple(hired)


def _outside(contact: Contact, name: str, reader: LiveReader, hired: tuple[Remote, ...]) -> Source:
    """What nothing records is compared here: what there is to be copied of it is not known before."""
    disk = contact.disk(name)
    found = offered(disk, reader) if hired and not disk.untracked else None
    return Source(reader, Transport.HOST if found is None else Transport.APPLIANCE, found)


def offered(disk: Disk, reader: LiveReader) -> Offered | None:
    """As what appliances get the disk; None if they cannot."""
    spells = reader if isinstance(reader, Spells) else None
    return Offered(disk.size, reader.uri, spells) if reader.uri or spells is not None else None


def _is_for_agent(disk: Disk, order: tuple[Transport, ...]) -> bool:
    """What nothing records is read whole each time: better outside, where that costs the guest less."""
    alone, first = order == (Transport.AGENT,), order[0] is Transport.AGENT
    return bool(disk.unreadable) or alone or (first and not disk.untracked)


def devices(contact: Contact) -> dict[str, str]:
    """The guest's device of every disk for which it can be proved. Raises what ``Inside.agent`` raises."""
    if contact.vm.guest_only:
        return {disk.name: disk.device for disk in contact.inventory.disks}
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


def _agent(contact: Contact, order: tuple[Transport, ...]) -> Agent | None:
    try:
        _require_trusted(contact)
        return contact.inside.agent()
    except errors.HeadstartError as error:
        if order == (Transport.AGENT,):
            raise
        if contact.inside.expected:
            contact.note(f"the agent in the guest is not used: {error}")
        return None


def _require_trusted(contact: Contact) -> None:
    found = contact.blamed.agent
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
