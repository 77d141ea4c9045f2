"""Values of JSON that was authenticated, but may have been written by another program, or by somebody who shares the
keys: each is of its kind, or ``ValueError`` is raised."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from headstart.repository import layout

#: Numbers of bytes, and of whatever else is counted, are below this.
_MOST = 1 << 63
#: Seconds since 1970 at the end of the year 9999: later moments have no date.
_LAST_MOMENT = 253_402_300_800
#: Objects and lists within each other, where anything may stand.
_DEEPEST = 32


def parse(data: bytes) -> Mapping[str, Any]:
    """An object. Numbers in it are finite."""
    try:
        return table(json.loads(data, parse_constant=_refuse, parse_float=_finite))
    except RecursionError:
        raise ValueError("too deep") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("too large a number")
    return found


def table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def anything(value: object) -> Mapping[str, Any]:
    """An object of whatever it may be, not too deep to be written again."""
    _check_depth(value, _DEEPEST)
    return table(value)


def _check_depth(value: object, left: int) -> None:
    if not left:
        raise ValueError("too deep")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        _check_depth(each, left - 1)


def items(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


def text(value: object) -> str:
    """Half a surrogate pair is no text, though JSON can say it."""
    if not isinstance(value, str):
        raise ValueError("no text")
    value.encode()
    return value


def text_or_none(value: object) -> str | None:
    return None if value is None else text(value)


def count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise ValueError("no number of anything")
    return value


def moment(value: object) -> float:
    """Seconds since 1970."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LAST_MOMENT:
        raise ValueError("no moment")
    return value


def chunk_id(value: object) -> bytes:
    found = bytes.fromhex(text(value))
    if len(found) != layout.CHUNK_ID_LENGTH:
        raise ValueError("no id of a chunk")
    return found
