"""The tables of the file as pydantic checks them, and what each of them means.

Kept apart from ``policy``: whoever works with policies does not load pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from headstart import errors
from headstart.appliance import addresses
from headstart.backup import plan
from headstart.backup.hooks import Hook
from headstart.backup.transport import Transport
from headstart.host import calendar, notation
from headstart.host.policy import (
    Consistency,
    FalseAudit,
    HeadStart,
    Host,
    Limits,
    Load,
    Policy,
    Rehearsal,
    Retention,
    Schedule,
    Window,
)
from headstart.restore.booting import definition
from headstart.restore.rehearsing import checks, rehearsal, signs
from headstart.restore.rehearsing.rehearsal import Order
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.places import Tcp

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Of Prometheus, where none is said.
METRICS_PORT = 9633
#: In the place of a policy: no backups.
NONE = "none"
_TRANSPORTS = {each.value: each for each in (Transport.AGENT, Transport.APPLIANCE, Transport.HOST)}
_ZONE_INSIDE = re.compile(r"\s(UTC|[A-Za-z_]+/[A-Za-z_/+-]+)$")
T = TypeVar("T")


class Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


# values


def _one_of(values: dict[str, T]) -> Callable[[object], T]:
    def chosen(value: object) -> T:
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
    found = tuple(_one_of(_TRANSPORTS)(each) for each in value)
    if len(set(found)) != len(found):
        raise ValueError("must name each transport once")
    return found


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each.strip("!") for each in value):
        raise ValueError('must be a list of patterns like "*" or "!swap*", and not an empty one')
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


# tables


class ScheduleTable(Table):
    calendar: Annotated[tuple[str, ...], BeforeValidator(_calendar)]
    timezone: Zone = Field(default=None, validate_default=True)
    random_delay: Duration = 0.0
    missed: Truth = True

    def value(self) -> Schedule:
        return Schedule(self.calendar, self.timezone, self.random_delay, self.missed)


class HeadStartTable(Table):
    transports: Annotated[tuple[Transport, ...], BeforeValidator(_transports)] = HeadStart().transports
    begin_before: PositiveDuration | None = None
    interval: PositiveDuration = HeadStart().interval
    after_false_audit: Annotated[FalseAudit, BeforeValidator(_one_of({each.value: each for each in FalseAudit}))] = (
        HeadStart().after_false_audit
    )

    def value(self) -> HeadStart:
        return HeadStart(self.transports, self.begin_before, self.interval, self.after_false_audit)


class LoadTable(Table):
    low: Share | None = None
    high: Share | None = None
    low_percentile: Percentile = Load().low_percentile
    high_percentile: Percentile = Load().high_percentile
    latency: PositiveDuration | None = None

    def value(self) -> Load:
        return Load(self.low, self.high, self.low_percentile, self.high_percentile, self.latency)


class LimitTable(Table):
    rate: Annotated[float | None, BeforeValidator(notation.limit)]
    begin: Clock | None = Field(default=None, alias="from")
    until: Clock | None = None
    days: Annotated[frozenset[int] | None, BeforeValidator(notation.days)] = None

    @property
    def is_default(self) -> bool:
        return self.begin is None and self.until is None and self.days is None

    def value(self) -> Window:
        every = Window(self.rate)
        begin = every.begin if self.begin is None else self.begin
        end = every.end if self.until is None else self.until
        return Window(self.rate, begin, end, every.days if self.days is None else self.days)


class RetentionTable(Table):
    keep_last: Count = 0
    keep_hourly: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0
    keep_within: PositiveDuration = 0.0

    def value(self) -> Retention:
        return Retention(**self.model_dump())


class HooksTable(Table):
    """The events of ``backup.hooks``."""

    before_freeze: Commands = Field(default=(), alias="before-freeze")
    after_thaw: Commands = Field(default=(), alias="after-thaw")
    before_release: Commands = Field(default=(), alias="before-release")
    after_publish: Commands = Field(default=(), alias="after-publish")

    def value(self) -> tuple[Hook, ...]:
        given = self.model_dump(by_alias=True)
        return tuple(Hook(event, command) for event, commands in given.items() for command in commands)


class RehearsalTable(Table):
    calendar: Annotated[tuple[str, ...], BeforeValidator(_calendar)]
    wait_for: Annotated[Awaited | None, BeforeValidator(_one_of({each.value: each for each in Awaited}))] = None
    pattern: Annotated[str, BeforeValidator(_pattern)] = ""
    timeout: PositiveDuration = rehearsal.SECONDS
    checks: Annotated[tuple[str, ...], BeforeValidator(_checks)] = ()
    memory: Annotated[int | None, BeforeValidator(_memory)] = None

    def value(self, zone: tzinfo) -> Rehearsal:
        awaited = Awaited.PATTERN if self.pattern else self.wait_for
        order = Order(awaited, self.pattern, self.timeout, self.checks, self.memory)
        return Rehearsal(Schedule(self.calendar, zone), order)


class PolicyTable(Table):
    schedule: ScheduleTable
    head_start: HeadStartTable = HeadStartTable()
    load: LoadTable = LoadTable()
    limits: list[LimitTable] = Field(default_factory=list)
    volumes: Annotated[tuple[str, ...], BeforeValidator(_patterns)] = ("*",)
    retention: RetentionTable = RetentionTable()
    consistency: Annotated[Consistency, BeforeValidator(_one_of({each.value: each for each in Consistency}))] = (
        Consistency.BEST
    )
    audit: Annotated[int | None, BeforeValidator(_audit)] = plan.AUDIT_BLOCKS
    hooks: HooksTable = HooksTable()
    rehearsal: RehearsalTable | None = None
    trim: PositiveDuration | None = None

    def value(self, name: str) -> Policy:
        return Policy(
            name,
            self.schedule.value(),
            self.head_start.value(),
            self.load.value(),
            self._limits(),
            self.volumes,
            self.retention.value(),
            self.consistency,
            self.audit,
            self.hooks.value(),
            None if self.rehearsal is None else self.rehearsal.value(self.schedule.timezone),
            self.trim,
        )

    def _limits(self) -> Limits:
        windows = tuple(each.value() for each in self.limits if not each.is_default)
        otherwise = next((each.rate for each in self.limits if each.is_default), None)
        return Limits(windows, otherwise, self.schedule.timezone)


class HostTable(Table):
    repository: Annotated[str | None, BeforeValidator(_address)] = None
    state: AbsolutePath | None = None
    scratch: AbsolutePath | None = None
    cache: AbsolutePath | None = None
    rounds: Count = Host().rounds
    backups: Count = Host().backups
    store_rate: StoreRate | None = None
    password_file: AbsolutePath | None = None
    password_command: Text | None = None
    appliances: Annotated[tuple[str, ...], BeforeValidator(_appliances)] = ()
    restore_into: AbsolutePath | None = None
    rehearsals: Truth = False
    boots: Truth = False
    metrics: Annotated[InstanceOf[Tcp] | None, BeforeValidator(_listen)] = None

    def value(self) -> Host:
        return Host(**dict(self))


class AssignmentTable(Table):
    """Of ``[vm.NAME]`` and ``[default]``."""

    policy: Annotated[str, BeforeValidator(_assigned)]


def fields(table: type[BaseModel]) -> dict[str, Any]:
    """The keys as they are written, with the annotation of each."""
    return {each.alias or name: each.annotation for name, each in table.model_fields.items()}
