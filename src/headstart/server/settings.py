"""What the command line and the environment say to a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from headstart.server.limits import KNOWN, STRANGERS, Rate

PORT = 8443
#: Bytes of one object: packs have 16 MiB, records of drafts at most 40 bytes for each block of a round.
LARGEST_OBJECT = 256 << 20
#: Of any other request.
LARGEST_BODY = 8 << 20


@dataclass(frozen=True, slots=True)
class Oidc:
    """A provider of OpenID Connect. ``issuer``: as it names itself; ``client`` and ``secret``: what it knows this
    server by; ``name``: on the button; ``url``: of this server, as browsers reach it, without a slash at its end."""

    issuer: str
    client: str
    secret: str = field(repr=False)
    name: str
    url: str


def is_safe(place: str) -> bool:
    """https; or on this machine, where nobody listens in."""
    try:
        parts = urlsplit(place)
        _ = parts.port
    except ValueError:
        return False
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or local) and place.isascii() and place.isprintable()


@dataclass(frozen=True, slots=True)
class Settings:
    """``data`` holds what is this server's own: key file, certificate, and by default the database and the objects.
    ``store``: the address of a place for objects. ``certificate`` and ``key``: PEM files; None: one of its own.
    ``names``: of this server, for its own certificate. ``workers``: jobs at a time, in this process. ``second_store``:
    the address of a place for copies of repositories. ``notices_private``: notices of
    tenants may lead into networks that are not public. ``known_rate`` and ``stranger_rate``: of requests of each who is
    known, and of each address of those who are not. ``oidc``: through whom people may log in, beside passwords."""

    data: Path
    database: str
    store: str
    address: str = "127.0.0.1"
    port: int = PORT
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    workers: int = 2
    second_store: str | None = None
    notices_private: bool = False
    known_rate: Rate = KNOWN
    stranger_rate: Rate = STRANGERS
    oidc: Oidc | None = None

    @property
    def key_file(self) -> Path:
        return self.data / "server.key"
