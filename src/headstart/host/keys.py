"""The kinds of values in the configuration: how each is written, checked by pydantic, and what it means.

Kept apart from ``policy``: whoever works with policies does not load pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import tzinfo
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, InstanceOf

from headstart import errors
from headstart.appliance import addresses
from headstart.backup.transport import Transport
from headstart.host import calendar, notation
from headstart.host.policy import Consistency, FalseAudit
from headstart.restore.booting import definition
from headstart.restore.rehearsing import checks, signs
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.places import Tcp

#: Of Prometheus, where none is said.
METRICS_PORT = 9633
#: In the place of a policy: no backups.
NONE = "none"
_TRANSPORTS = {each.value: each for each in (Transport.AGENT, Transport.APPLIANCE, Transport.HOST)}
_ZONE_INSIDE = re.compile(r"\s(UTC|[A-Za-z_]+/[A-Za-z_/+-]+)$")
E = TypeVar("E", bound=Enum)


def _one_of(kind: type[E]) -> Callable[[object], E]:
    return _chosen({str(each.value): each for each in kind})


def _chosen(values: dict[str, E]) -> Callable[[object], E]:
    def chosen(value: object) -> E:
        if isinstance(value, str) and value in values:
            return values[value]
        allowed = ", ".join(f'"{each}"' for each in values)
        hint = notation.nearest(value, list(values)) if isinstance(value, str) else ""
        raise ValueError(f"must be one of {allowed}, not {notation.shown(value)}{hint}")

    return chosen


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be text that is not empty, not {notation.shown(value)}")
    return value


def _texts(value: object) -> tuple[str, ...]:
    """One, or a list."""
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(each, str) and each.strip() for each in given):
        raise ValueError("must be text, or a list of texts, none of them empty")
    return tuple(given)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {notation.shown(value)}")
    return value


def _calendar(value: object) -> tuple[str, ...]:
    wrong = []
    for expression in (given := _texts(value)):
        if reason := calendar.check(expression):
            if _ZONE_INSIDE.search(expression):
                reason = "a time zone stands in timezone, not here"
            wrong.append(f'"{expression}" is no calendar expression of systemd\'s ({reason})')
    if wrong:
        raise ValueError("; ".join([*wrong, 'examples are "daily", "Mon..Fri 02:30", "*:0/15"']))
    return given


def _transports(value: object) -> tuple[Transport, ...]:
    if not isinstance(value, list):
        said = 'must be a list of "agent", "appliance" and "host", maybe an empty one'
        raise ValueError(f"{said}, not {notation.shown(value)}")
    found = tuple(_chosen(_TRANSPORTS)(each) for each in value)
    if len(set(found)) != len(found):
        raise ValueError("must name each transport once")
    return found


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each.strip("!") for each in value):
        raise ValueError('must be a list of patterns like "*" or "!swap", and not an empty one')
    return tuple(value)


def _audit(value: object) -> int | None:
    if value == "all":
        return None
    if value == "none":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'must be a number of blocks, "all" or "none", not {notation.shown(value)}')
    return value


def _checks(value: object) -> tuple[str, ...]:
    try:
        return tuple(map(checks.check_name, _texts(value)))
    except errors.Usage as error:
        raise ValueError(str(error)) from None


def _pattern(value: object) -> str:
    try:
        return signs.compiled(_text(value))
    except errors.Usage as error:
        raise ValueError(str(error)) from None


def _memory(value: object) -> int:
    """As QEMU's ``-m`` has it."""
    try:
        return definition.memory_of(_text(value))
    except errors.Unsupported:
        raise ValueError(f'must be a size like "4G", not {notation.shown(value)}') from None


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"must be an absolute path, not {notation.shown(value)}")
    return Path(value)


def _address(value: object) -> str:
    if not isinstance(value, str) or not (value.startswith("/") or "://" in value):
        raise ValueError(f"must be an absolute path or a URL, not {notation.shown(value)}")
    return value


def _appliances(value: object) -> tuple[str, ...]:
    try:
        return tuple(addresses.parse(each).text for each in _texts(value))
    except errors.Usage as error:
        raise ValueError(str(error)) from None


def _listen(value: object) -> Tcp:
    text = _text(value)
    try:
        return Tcp.parse(text, port=METRICS_PORT)
    except errors.Usage as error:
        raise ValueError(str(error)) from None


def _assigned(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'must be the name of a policy, or "{NONE}", not {notation.shown(value)}')
    return value


Text = Annotated[str, BeforeValidator(_text)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Count = Annotated[int, BeforeValidator(notation.count)]
Duration = Annotated[float, BeforeValidator(notation.duration)]
PositiveDuration = Annotated[float, BeforeValidator(notation.positive_duration)]
StoreRate = Annotated[float, BeforeValidator(notation.store_rate)]
Share = Annotated[float, BeforeValidator(notation.share)]
Percentile = Annotated[float, BeforeValidator(notation.percentile)]
Clock = Annotated[int, BeforeValidator(notation.clock)]
Zone = Annotated[InstanceOf[tzinfo], BeforeValidator(notation.zone)]
AbsolutePath = Annotated[InstanceOf[Path], BeforeValidator(_path)]
Commands = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Address = Annotated[str, BeforeValidator(_address)]
Appliances = Annotated[tuple[str, ...], BeforeValidator(_appliances)]
Assigned = Annotated[str, BeforeValidator(_assigned)]
Audit = Annotated[int | None, BeforeValidator(_audit)]
Calendar = Annotated[tuple[str, ...], BeforeValidator(_calendar)]
Checks = Annotated[tuple[str, ...], BeforeValidator(_checks)]
Days = Annotated[frozenset[int], BeforeValidator(notation.days)]
Listen = Annotated[InstanceOf[Tcp], BeforeValidator(_listen)]
Memory = Annotated[int, BeforeValidator(_memory)]
Pattern = Annotated[str, BeforeValidator(_pattern)]
Rate = Annotated[float | None, BeforeValidator(notation.limit)]
Transports = Annotated[tuple[Transport, ...], BeforeValidator(_transports)]
Volumes = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
WhatFollows = Annotated[FalseAudit, BeforeValidator(_one_of(FalseAudit))]
HowConsistent = Annotated[Consistency, BeforeValidator(_one_of(Consistency))]
SignOfLife = Annotated[Awaited, BeforeValidator(_one_of(Awaited))]
