"""Passwords of people, and the codes of their authenticator programs (RFC 6238)."""

from __future__ import annotations

import hmac

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from argon2.low_level import Type

from headstart import errors

SHORTEST, LONGEST = 12, 1024
_STEP_SECONDS = 30
#: RFC 9106's second choice: 64 MiB. A processor spends a few hundredths of a second on it.
_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, type=Type.ID)
#: Of no password that anybody knows, and of the same cost as all others. Checked when there is no such person, or one
#: without a password, so that the time of the answer does not tell.
NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$CJVXAFBYLHzB5cvgJNGH8g$+NDh++EzDQlGgIZ0oPt32XWjzb4VyxS3jK2oQzUNFYQ"


def hashed(password: str) -> str:
    """Raises ``Usage`` for one that is none."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise errors.Usage(f"A password takes {SHORTEST} to {LONGEST} characters.")
    return _HASHER.hash(password)


def is_right(kept: str, password: str) -> bool:
    try:
        return len(password) <= LONGEST and _HASHER.verify(kept, password)
    except VerificationError:
        return False


def new_totp() -> str:
    """In base 32, as authenticator programs take it."""
    return pyotp.random_base32()


def totp_uri(secret: str, name: str) -> str:
    """For a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="Headstart")


def totp_step(secret: str, code: str, now: float, last: int) -> int | None:
    """The step of time whose code this is, of the present one and its neighbours. Only one after ``last``: each code
    serves once. None: it is not right."""
    present = int(now) // _STEP_SECONDS
    given = code.strip().replace(" ", "").encode(errors="replace")
    for step in (present - 1, present, present + 1):
        right = pyotp.TOTP(secret).at(step * _STEP_SECONDS).encode()
        if step > last and hmac.compare_digest(right, given):
            return step
    return None
