"""An ID token of OpenID Connect (Core 1.0, 3.1.3.7): whether it says what was asked for, and who says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

#: With a pair of keys, and no others: with "none" or a shared secret anybody could sign who has read what is public.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
#: Seconds that the provider's clock may be off ours.
LEEWAY = 120
_LONGEST = 32 << 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """``clock``: seconds since 1970."""

    issuer: str
    client: str
    nonce: str
    clock: Callable[[], float]


class Wrong(Exception):
    """It proves nothing."""


class OtherKey(Wrong):
    """Signed with none of these keys."""


def verify(token: str, keys: KeySet, wanted: Wanted) -> Mapping[str, Any]:
    """Its claims. Raises ``Wrong``."""
    if len(token) > _LONGEST or not token.isascii():
        raise Wrong("the id_token is too long, or none")
    try:
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        _registry(wanted).validate(claims)
    except (BadSignatureError, InvalidKeyIdError) as error:
        raise OtherKey(f"the id_token: {error}") from error
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Wrong(f"the id_token: {error}") from error
    # It may be meant for several, but has to be made for us.
    audience, party = claims["aud"], claims.get("azp")
    if party not in (None, wanted.client) or (isinstance(audience, list) and len(audience) > 1 and party is None):
        raise Wrong("the id_token: it was made for another program")
    return claims


def _registry(wanted: Wanted) -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        now=lambda: int(wanted.clock()),
        leeway=LEEWAY,
        iss={"essential": True, "value": wanted.issuer},
        aud={"essential": True, "value": wanted.client},
        nonce={"essential": True, "value": wanted.nonce},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
