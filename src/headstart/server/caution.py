"""Destructive acts of a tenant that wait for a second person, or for a delay.

What destroys asks here itself, so that no way leads around it: it is done with a call that was approved, or where
nothing is required. How to ask is in ``approvals``.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from headstart import errors
from headstart.server import tables
from headstart.server.call import Call

LONGEST_DELAY = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Caution:
    """``delay``: seconds from asking to doing. With both, both are needed."""

    second_person: bool = False
    delay: float = 0.0

    def __bool__(self) -> bool:
        return self.second_person or self.delay > 0

    def is_weaker_than(self, other: Caution) -> bool:
        return (other.second_person and not self.second_person) or self.delay < other.delay


def of(connection: Connection, tenant: str | None) -> Caution:
    its = tables.tenants.c
    row = connection.execute(select(its.second_person, its.delay_seconds).where(its.id == tenant)).first()
    return Caution() if row is None else Caution(row.second_person, row.delay_seconds)


def require_approved(connection: Connection, call: Call) -> None:
    """Raises ``Denied`` for what would have to be asked for first."""
    if not call.approved and of(connection, call.who.tenant):
        raise errors.Denied(
            "The tenant wants a second person, or a delay, for this: it is asked for, not done at once."
        )
