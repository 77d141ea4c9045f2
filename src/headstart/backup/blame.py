"""Who delivered false blocks is told, and is not used any longer."""

from __future__ import annotations

from dataclasses import dataclass

from headstart import units
from headstart.backup.contact import Contact
from headstart.state import appliances
from headstart.state.values import AGENT, Distrust


@dataclass(frozen=True, slots=True)
class Found:
    """Blocks that were false, of so many that were compared; bytes that were false, and that are read again."""

    count: int
    compared: int
    false_bytes: int
    again_bytes: int


def tell(contact: Contact, whose: int, found: Found, *, lasting: bool) -> None:
    """``whose``: the agent's, or the number of an appliance. ``lasting``: not only in this run."""
    reason = f"{found.count} of {found.compared} blocks of it that were compared were not what the disks held"
    distrust = Distrust(contact.context.clock(), reason)
    again = f"; all that is from it ({units.format_bytes(found.again_bytes)}) is read from outside"
    if whose == AGENT:
        _tell_agent(contact, distrust, found, again, lasting=lasting)
    else:
        _tell_appliance(contact, whose, distrust, found, again, lasting=lasting)


def _tell_agent(contact: Contact, distrust: Distrust, found: Found, again: str, *, lasting: bool) -> None:
    contact.false_bytes += found.false_bytes
    contact.distrust = distrust
    said = f"the agent in the guest delivered false blocks: {distrust.reason}{again}"
    if lasting:
        contact.context.journal.distrust(contact.name, distrust)
        said += f", and it is not used again until 'headstart agent trust {contact.name}'"
    contact.notes.append(said)


def _tell_appliance(
    contact: Contact, number: int, distrust: Distrust, found: Found, again: str, *, lasting: bool
) -> None:
    """Of an appliance that nobody knows any longer: it cannot be told which."""
    contact.appliance_false_bytes += found.false_bytes
    journal = contact.context.journal
    name = appliances.names(journal).get(number, "")
    said = f"the appliance {name or f'with number {number}'} delivered false blocks: {distrust.reason}{again}"
    if name:
        contact.distrusted_appliances.add(name)
    if lasting and name:
        appliances.distrust(journal, name, distrust)
        said += f", and it is not used again by this host until 'headstart appliance trust {name}'"
    contact.notes.append(said)
