"""What a host keeps of the server that it joined: a file in its state, for nobody else to read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from headstart import durable, errors
from headstart.store import credentials
from headstart.wire.https import Identity

#: In the directory of the state.
FILE = "server.json"
#: Where it is, for every process of ours; and, in place of it, a token and the fingerprint of the server's certificate.
PATH, TOKEN, FINGERPRINT = "HEADSTART_SERVER_FILE", "HEADSTART_TOKEN", "HEADSTART_FINGERPRINT"
PORT = 8443


@dataclass(frozen=True, slots=True)
class Membership:
    """``url`` of the server; ``repository``: the name of that which the host may add to; ``expires``: of the token,
    seconds since 1970."""

    url: str
    token: str = field(repr=False)
    fingerprint: str
    tenant: str
    host: str
    repository: str
    expires: float

    @property
    def identity(self) -> Identity:
        return Identity(self.url, self.token, self.fingerprint)

    @property
    def address(self) -> str:
        """Of the repository."""
        return f"{self.url}/{self.repository}"


def load(path: Path) -> Membership | None:
    """None where this host has joined no server. Raises ``Damaged``."""
    try:
        told = json.loads(path.read_bytes())
        return Membership(**told)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.Usage(f"{path} cannot be read: {error.strerror}. Run as the user who joined.") from error
    except (ValueError, TypeError) as error:
        raise errors.Damaged(f"{path} is damaged. Join the server again: headstart join URL TOKEN.") from error


def save(path: Path, membership: Membership) -> None:
    """Durable, and readable for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, json.dumps(asdict(membership), indent=1).encode())


def server_of(url: str) -> str:
    """``https://host:port`` of an address on that server; the port is 8443 where none is named. Raises ``Usage``."""
    credentials.refuse(url)
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise errors.Usage(f"{url}: {error}.") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise errors.Usage(f"{url!r} is no address of a server: write https://HOST[:PORT].")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def identity_for(url: str, environment: Mapping[str, str] = os.environ) -> tuple[Identity, str | None]:
    """Who we are at the server of ``url``, and the repository of the token, if a host joined for one. The environment
    comes first. Raises ``Usage``."""
    server = server_of(url)
    if environment.get(TOKEN):
        return Identity(server, environment[TOKEN], environment.get(FINGERPRINT, "").lower().replace(":", "")), None
    path = environment.get(PATH)
    found = load(Path(path)) if path else None
    if found is None or found.url != server:
        raise errors.Usage(
            f"This machine has not joined {server}. Join it with 'headstart join {server} TOKEN', or set {TOKEN}."
        )
    return found.identity, found.repository
