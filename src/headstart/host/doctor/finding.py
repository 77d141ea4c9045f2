"""What a check of the doctor's says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from headstart import errors


class Level(IntEnum):
    """Ordered by weight. ``NOTE``: worth knowing. ``WARNING``: backups work, but worse than they could, or not for
    long. ``PROBLEM``: they fail, or do not come."""

    OK = 0
    NOTE = 1
    WARNING = 2
    PROBLEM = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` is, and what to change: ``advice``, empty where there is nothing. ``vm``: the VM's name; empty: of the
    host."""

    check: str
    level: Level
    what: str
    advice: str = ""
    vm: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """``look`` may raise ``HeadstartError`` and ``OSError``, which are findings too; ``seconds`` is how long it may
    take."""

    name: str
    look: Callable[[], Iterable[Finding]]
    seconds: float = 20.0
    vm: str = ""


def of_error(check: str, error: errors.HeadstartError, level: Level = Level.PROBLEM) -> Finding:
    """The first sentence is what is, the others what to do."""
    what, _, advice = str(error).partition(". ")
    return Finding(check, level, what.rstrip("."), advice)
