"""One request: who asks, from where, when."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.server.principal import Principal


@dataclass(frozen=True, slots=True)
class Call:
    """``now``: seconds since 1970, by the server's clock. ``request``: its id, as in the logs. ``approved``: the id of
    what was asked for before and may be done now, where destructive acts wait (``caution``)."""

    who: Principal
    now: float
    address: str = ""
    request: str = ""
    approved: str = ""
