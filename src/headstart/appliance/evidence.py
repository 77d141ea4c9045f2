"""What appliances say is durable, until this host has seen it in the repository itself: only then it counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from headstart import errors
from headstart.repository import Repository
from headstart.transfer.pipeline import Stored

#: Between two looks at what was listed: each costs a request of the store.
LOOK_SECONDS = 10.0


@dataclass(slots=True)
class _Claim:
    """What one appliance has said."""

    stored: list[Stored] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    #: So many of the packs were handed on already.
    told: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What ``whose`` stored, and is in the repository; and packs (hex) that it made since the last time."""

    whose: str
    stored: Sequence[Stored]
    packs: Sequence[str]


class Evidence:
    """Used by one thread."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._claims: dict[str, _Claim] = {}
        self._looked = time.monotonic()

    def claim(self, whose: str, stored: Iterable[Stored], packs: Iterable[str]) -> None:
        found = self._claims.setdefault(whose, _Claim())
        found.stored += stored
        found.packs += packs

    def look(self) -> list[Seen]:
        """What can be seen by now; it is looked every ``LOOK_SECONDS``. Raises what the store raises."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return []
        return self._look()

    def conclude(self) -> tuple[list[Seen], dict[str, list[Stored]]]:
        """Everything that is there, also in packs that nobody lists; and what of each appliance is not there."""
        seen = self._look()
        for whose, claim in self._claims.items():
            if claim.stored:
                self._adopt(claim.packs)
                seen.append(self._confirmed(whose, claim))
        return seen, {whose: claim.stored for whose, claim in self._claims.items() if claim.stored}

    def _look(self) -> list[Seen]:
        if any(claim.stored for claim in self._claims.values()):
            self._repo.holdings.refresh()
        self._looked = time.monotonic()
        return [self._confirmed(whose, claim) for whose, claim in self._claims.items() if claim.stored]

    def _adopt(self, packs: Iterable[str]) -> None:
        """Of one that was lost: nobody has listed its last packs."""
        for pack in packs:
            with contextlib.suppress(errors.Damaged):
                self._repo.adopt(pack)

    def _confirmed(self, whose: str, claim: _Claim) -> Seen:
        missing = set(self._repo.missing(each.chunk for each in claim.stored if each.chunk is not None))
        seen = [each for each in claim.stored if each.chunk not in missing]
        claim.stored = [each for each in claim.stored if each.chunk in missing]
        packs, claim.told = claim.packs[claim.told :], len(claim.packs)
        return Seen(whose, seen, packs)
