"""Appliances in a round: who is hired, and what they deliver goes into the draft.

An appliance has the key of the repository, and so may store what it likes. What it says still counts only for what it
was asked for in this round, when this host has seen it in the repository, and until the audit finds it false.
"""

from __future__ import annotations

from datetime import datetime

from headstart import blocks, errors
from headstart.appliance import addresses
from headstart.appliance.addresses import Address
from headstart.appliance.evidence import Seen
from headstart.appliance.remote import Remote
from headstart.backup.contact import Contact
from headstart.backup.fill import Filling
from headstart.blocks import Blocks
from headstart.state import appliances
from headstart.state.values import Distrust


def hire(contact: Contact) -> list[Remote]:
    """All of this host's that answer and are trusted; why others are not used is told. The caller closes them. Raises
    ``Usage`` for what is no address."""
    chosen = [addresses.parse(each) for each in contact.context.appliances]
    return [remote for remote in (_hired(contact, address) for address in chosen) if remote is not None]


def _hired(contact: Contact, address: Address) -> Remote | None:
    found = appliances.distrusted(contact.context.journal, address.name)
    if found is not None or address.name in contact.blamed.appliances:
        contact.note(_distrusted(address.name, found))
        return None
    try:
        return Remote(address, contact.context.repository)
    except errors.HeadstartError as error:
        contact.note(f"the appliance {address.name} is not used: {error}")
        return None


def _distrusted(name: str, found: Distrust | None) -> str:
    if found is None:
        return f"the appliance {name} is not used: it delivered false blocks"
    since = datetime.fromtimestamp(found.since).astimezone()
    return (
        f"the appliance {name} is not used: it is not trusted since {since:%Y-%m-%d %H:%M}, because {found.reason}."
        f" 'headstart appliance trust {name}' uses it again"
    )


class Foreman:
    """``headstart.appliance.crew.Overseer`` of one round."""

    def __init__(self, contact: Contact, fill: Filling) -> None:
        self._contact = contact
        self._fill = fill
        self.delivered = False

    def seen(self, found: Seen) -> None:
        size = self._contact.context.repository.block_size
        read: dict[str, Blocks] = {}
        for each in found.stored:
            read.setdefault(each.disk, Blocks()).add(each.block)
        count = sum(blocks.total_bytes(each, size, self._contact.disk(name).size) for name, each in read.items())
        number = appliances.number(self._contact.context.journal, found.whose)
        self._fill.taken(found.stored, found.packs, count, number)
        self.delivered = self.delivered or bool(found.stored)

    def lost(self, name: str, why: str) -> None:
        self._contact.note(f"the appliance {name} is not used any longer: {why}")

    def beat(self) -> None:
        self._contact.context.beat()
