"""Who decides what of a round is copied now, and how fast: the user's hand, or a governor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headstart.backup.contact import Contact
from headstart.backup.identify import Identified
from headstart.blocks import Blocks
from headstart.load.throttle import Permit


class Pace(Protocol):
    def chosen(self, contact: Contact, identified: Identified, remaining: Mapping[str, Blocks]) -> dict[str, Blocks]:
        """Of each disk's remaining blocks, those to copy now. The others remain."""
        ...

    def permit(self, contact: Contact) -> Permit | None:
        """Asked for every portion that is read; None: nobody has to be asked."""
        ...


class AtOnce:
    """Everything, as fast as it goes."""

    def chosen(self, contact: Contact, identified: Identified, remaining: Mapping[str, Blocks]) -> dict[str, Blocks]:
        return dict(remaining)

    def permit(self, contact: Contact) -> Permit | None:
        return None
