"""What a browser carries to the provider and back, sealed in a cookie: so that an answer is taken only from the browser
that asked, for what it asked, and by any process.

The cookie of the session does not come along (``SameSite=Strict``): somebody who links an account is known by this one.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass

from headstart import errors
from headstart.server.provider import Question
from headstart.server.sealing import Sealer

#: Somebody may have to look for a device of the provider's.
SECONDS = 600.0
_PURPOSE = "oidc"
_BYTES = 32


@dataclass(frozen=True, slots=True)
class Crossing:
    """``place``: of this server's, to go to after. ``session``: the hash of that of somebody who links an account;
    empty: somebody logs in. ``invitation``: its secret, where there is one."""

    state: str
    nonce: str
    verifier: str
    began: float
    place: str = "/"
    session: str = ""
    invitation: str = ""

    @property
    def question(self) -> Question:
        return Question(self.state, self.nonce, self.verifier)


def begin(now: float, place: str = "/", session: str = "", invitation: str = "") -> Crossing:
    state, nonce, verifier = (secrets.token_urlsafe(_BYTES) for _ in range(3))
    return Crossing(state, nonce, verifier, now, place, session, invitation)


def sealed(sealer: Sealer, crossing: Crossing) -> str:
    return base64.urlsafe_b64encode(sealer.seal(_PURPOSE, json.dumps(asdict(crossing)).encode())).decode()


def opened(sealer: Sealer, text: str, now: float) -> Crossing | None:
    """None: it is none of ours, or too old."""
    try:
        found = Crossing(**json.loads(sealer.open(_PURPOSE, base64.urlsafe_b64decode(text.encode()))))
    except (errors.Damaged, ValueError, TypeError):
        return None
    return found if now - SECONDS < found.began <= now + 1 else None
