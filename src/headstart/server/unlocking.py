"""Opening a repository for somebody who gives its password: for a while, and kept by nobody but him.

The secrets are sealed under the server's key into a text that goes to whoever asked, and comes back with each of his
requests. The server has them in memory while it works for him; no table and no other process holds them.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from dataclasses import dataclass

from headstart import errors, repository
from headstart.repository.keys import Secrets
from headstart.server import attempts, audit, repositories
from headstart.server.call import Call
from headstart.server.repositories import Place
from headstart.server.roles import Right
from headstart.server.site import Site

SECONDS = 1800.0
_PURPOSE = "unlock"
#: Guesses at a time in one process: each takes 64 MiB, and a processor's tenth of a second.
GUESSES = threading.BoundedSemaphore(2)


class NotUnlocked(errors.WrongPassword):
    """The password of the repository is wanted (again)."""


@dataclass(frozen=True, slots=True)
class Unlocked:
    """``text`` opens until ``expires``, for who asked and for this repository alone."""

    text: str
    expires: float


def guesses_of(call: Call) -> dict[str, int]:
    """What a wrong password of a repository counts for (``attempts``), whatever it was given for."""
    return attempts.keys(f"unlock {call.who.id}", call.address)


def unlock(site: Site, call: Call, name: str, password: str) -> Unlocked:
    """Raises ``WrongPassword``; ``TooOften`` after some of them; ``Denied`` without the right to restore; ``NotFound``,
    ``NoRepository``."""
    call.who.require(Right.RESTORE)
    allowed = guesses_of(call)
    with site.database.write() as connection:
        place = repositories.get(connection, call.who, name)
        attempts.begin(connection, allowed, call.now)
    with GUESSES, repository.open(place.store(site), lambda: password.encode()) as opened:
        secrets = opened.secrets
    if not secrets.opens_content:
        raise errors.WrongPassword("This password opens the structure alone, and no files.")
    with site.database.write() as connection:
        attempts.succeeded(connection, allowed)
        audit.note(connection, call, "repository.unlock", place.id)
    told = {
        "repository": place.id,
        "who": call.who.id,
        "expires": call.now + SECONDS,
        "secrets": secrets.joined.hex(),
    }
    sealed = site.sealer.seal(_PURPOSE, json.dumps(told).encode())
    return Unlocked(base64.urlsafe_b64encode(sealed).decode().rstrip("="), call.now + SECONDS)


def secrets_of(site: Site, call: Call, place: Place, text: str) -> Secrets:
    """Raises ``NotUnlocked``: alike for what has ended, what is another's and what is nonsense."""
    try:
        padded = text + "=" * (-len(text) % 4)
        told = json.loads(site.sealer.open(_PURPOSE, base64.urlsafe_b64decode(padded.encode())))
    except (errors.Damaged, binascii.Error, ValueError) as error:
        raise NotUnlocked("Give the password of the repository to look into it.") from error
    if (told["repository"], told["who"]) != (place.id, call.who.id) or told["expires"] <= call.now:
        raise NotUnlocked("Give the password of the repository to look into it: the last time is over.")
    return Secrets.of(bytes.fromhex(told["secrets"]))
