"""Paper keys: the secrets of a repository, as lines that can be printed, and typed again.

::

    line   12 bytes of the secrets | 3 bytes of check      as 24 letters and digits, in groups of four

The letters are Crockford's base 32: no I, L, O or U; who types them all the same is understood. A mistake in a line, or
two lines that changed places, are found line by line.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Sequence

from blake3 import blake3

from headstart import errors
from headstart.repository import layout
from headstart.repository.keys import Secrets

_BYTES = 12
_CHECK = 3
_GROUP = 4
LINES = 3 * layout.SECRET_LENGTH // _BYTES

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RFC4648 = string.ascii_uppercase + "234567"
_TO_CROCKFORD = str.maketrans(_RFC4648, _CROCKFORD)
_FROM_CROCKFORD = str.maketrans(_CROCKFORD + "ILO", _RFC4648 + _RFC4648[1] * 2 + _RFC4648[0])


def lines(secrets: Secrets) -> list[str]:
    """``LINES`` of them. Raises ``keys.NoContent`` where the secrets are not all there."""
    _ = secrets.of_content_ids
    joined = secrets.joined
    return [_line(number, joined[number * _BYTES : (number + 1) * _BYTES]) for number in range(LINES)]


def secrets_of(told: Sequence[str]) -> Secrets:
    """From the lines, with whatever spaces, hyphens and cases. Raises ``Usage`` that names the line."""
    if len(told) != LINES:
        raise errors.Usage(f"A paper key has {LINES} lines, not {len(told)}.")
    return Secrets.of(b"".join(part_of(number, line) for number, line in enumerate(told)))


def part_of(number: int, line: str) -> bytes:
    """What line ``number``, counted from 0, says. Raises ``Usage``."""
    typed = "".join(line.split()).replace("-", "").upper()
    try:
        data = base64.b32decode(typed.translate(_FROM_CROCKFORD))
    except ValueError:
        data = b""
    if len(data) != _BYTES + _CHECK or data[_BYTES:] != _check(number, data[:_BYTES]):
        raise errors.Usage(f"Line {number + 1} of the paper key is not what was printed: look at it again.")
    return data[:_BYTES]


def _line(number: int, part: bytes) -> str:
    text = base64.b32encode(part + _check(number, part)).decode().translate(_TO_CROCKFORD)
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _check(number: int, part: bytes) -> bytes:
    return blake3(b"paper key\0" + bytes([number]) + part).digest()[:_CHECK]
