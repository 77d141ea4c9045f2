"""One request: who asks, from where, when."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.server.principal import Principal


@dataclass(frozen=True, slots=True)
class Call:
    """``now``: seconds since 1970, by the server's clock. ``request``: its id, as in the logs."""

    who: Principal
    now: float
    address: str = ""
    request: str = ""
