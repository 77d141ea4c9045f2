"""Who reads the blocks of a round: the agent inside the guest, or this host from outside.

::

    agent   answers, and the disk is proved to be this device of its   ->   read in the guest
    host    everything else that can be read from outside

An agent that vanishes in the middle of a round costs the rest of that round: it remains to be copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from headstart import errors
from headstart.backup.contact import Contact
from headstart.guest.agent import Agent
from headstart.guest.mapping import Unproved
from headstart.hypervisor.contract import LiveReader
from headstart.reading import Reader


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
def sources(contact: Contact, disks: Sequence[str], wanted: Transport) -> Iterator[Mapping[str, Source]]:
    """Readers of the running disks. Raises ``Unreachable`` if ``AGENT`` is wanted and does not answer; a disk that
    nobody can read is left out."""
    with contact.machine.live(disks) as live:
        agent = _agent(contact, wanted)
        found: dict[str, Source] = {}
        for name in disks:
            inside = _proved(contact, agent, name, live) if agent else None
            if inside is not None:
                found[name] = Source(inside, Transport.AGENT)
            elif name in live:
                found[name] = Source(live[name], Transport.HOST)
        yield found


def _agent(contact: Contact, wanted: Transport) -> Agent | None:
    if wanted is Transport.HOST:
        return None
    try:
        return contact.inside.agent()
    except errors.Unreachable as error:
        if wanted is Transport.AGENT:
            raise
        if contact.inside.expected:
            contact.note(f"the disks are read from outside: {error}")
        return None


def _proved(contact: Contact, agent: Agent, name: str, live: Mapping[str, LiveReader]) -> Reader | None:
    disk = contact.disk(name)
    try:
        if name not in live:
            raise Unproved(disk.unreadable or "it cannot be read from outside")
        agent.prove(disk, live[name])
        return agent.reader(disk)
    except Unproved as error:
        contact.note(f"disk {name} is read from outside: which device of the guest it is cannot be proved: {error}")
    except errors.Unreachable as error:
        contact.inside.lost(error)
        contact.note(f"disk {name} is read from outside: {error}")
    return None
