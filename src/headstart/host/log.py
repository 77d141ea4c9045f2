"""Decisions with their numbers, one line each: ``vm=web round=3 dirty=1.2GiB load=0.31 reason="..."``."""

from __future__ import annotations

import logging
import re

from headstart import plain, units

_log = logging.getLogger("headstart.host")
#: Characters of a value.
_LONGEST = 2000
_PLAIN = re.compile(r"[\w.,:/+%@-]+")


def decision(vm: str, **values: object) -> None:
    _log.info("%s", line(vm=vm, **values))


def warning(vm: str, **values: object) -> None:
    _log.warning("%s", line(vm=vm, **values))


def line(**values: object) -> str:
    """Those that are None are left out."""
    return " ".join(f"{name}={_shown(value)}" for name, value in values.items() if value is not None)


def _shown(value: object) -> str:
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    text = plain.line(text, _LONGEST)
    if _PLAIN.fullmatch(text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def size(count: float) -> str:
    return units.format_bytes(round(count)).replace(" ", "")


def rate(count: float) -> str:
    return size(count) + "/s"


def seconds(count: float) -> str:
    return units.format_seconds(count).replace(" ", "")
