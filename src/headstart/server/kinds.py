"""Kinds of work on the server's side: a table of values. What each does is in ``work/``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.server.roles import Right

_DAY = 86400.0
_WEEK = 7 * _DAY


@dataclass(frozen=True, slots=True)
class Kind:
    """``right``: to order it; None: it comes by itself alone. ``lane``: of a repository's (or the site's) with the same
    one, one runs at a time. ``every`` so many seconds it comes by itself; None: never. ``needs_structure``: only where
    the tenant gave the server the key of the structure. ``of_removed``: of repositories that were removed, and no
    others."""

    name: str
    right: Right | None
    lane: str
    every: float | None = None
    needs_structure: bool = False
    of_site: bool = False
    of_removed: bool = False


_COLLECT = "collect"

FORGET = Kind("forget", Right.DELETE, _COLLECT, needs_structure=True)
GC = Kind("gc", Right.DELETE, _COLLECT, _DAY, needs_structure=True)
VERIFY = Kind("verify", Right.CONFIGURE, "verify", _WEEK, needs_structure=True)
COPY = Kind("copy", Right.CONFIGURE, "copy")
REHEARSE = Kind("rehearse", Right.RESTORE, "rehearse")
RECOUNT = Kind("recount", Right.CONFIGURE, "recount", _DAY)
CATALOGUE = Kind("catalogue", Right.CONFIGURE, "catalogue", needs_structure=True)
REMOVE = Kind("remove", None, "remove", 600.0, of_removed=True)
TIDY = Kind("tidy", None, "tidy", 600.0, of_site=True)
DUMP = Kind("dump", None, "dump", _DAY, of_site=True)

ALL = {each.name: each for each in (FORGET, GC, VERIFY, COPY, REHEARSE, RECOUNT, CATALOGUE, REMOVE, TIDY, DUMP)}
