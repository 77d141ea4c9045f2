"""What is backed up when, in which way, and at whose cost: the values of a host's configuration.

``docs/policies.md`` tells what the keys mean; ``config`` reads them. Seconds, bytes, and bytes per second.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import Enum
from pathlib import Path

from headstart import errors
from headstart.backup import plan
from headstart.backup.hooks import Hook
from headstart.backup.transport import Transport
from headstart.repository.retention import Rules, Span
from headstart.restore.rehearsing.rehearsal import Order
from headstart.restore.serving.places import Tcp
from headstart.volumes import selection

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES


class FalseAudit(Enum):
    """What follows when the audit finds false what the agent delivered, beside the report. ``DISTRUST``: it is not used
    until its owner trusts it again."""

    DISTRUST = "distrust"
    REPORT = "report"


class Consistency(Enum):
    """``FILESYSTEM``: frozen, or the backup fails. ``CRASH``: never frozen. ``BEST``: frozen where that is possible."""

    FILESYSTEM = "filesystem"
    CRASH = "crash"
    BEST = "best"


@dataclass(frozen=True, slots=True)
class Schedule:
    """``calendar``: systemd calendar expressions, in the wall clock of ``zone``."""

    calendar: tuple[str, ...]
    zone: tzinfo
    random_delay: float = 0.0
    missed: bool = True


@dataclass(frozen=True, slots=True)
class HeadStart:
    """``transports`` in the order in which they are tried; none: nothing is copied ahead. Copying may begin
    ``begin_before`` the next backup (None: at any time), and a round ``interval`` after the last one."""

    transports: tuple[Transport, ...] = (Transport.AGENT, Transport.HOST)
    begin_before: float | None = None
    interval: float = 900.0
    after_false_audit: FalseAudit = FalseAudit.DISTRUST


@dataclass(frozen=True, slots=True)
class Load:
    """Below ``low`` it is copied at full speed, above ``high`` not at all: shares of what the VM can do. Where they
    are None, the percentiles of what this VM usually does stand for them. ``latency`` bounds the guest's writes."""

    low: float | None = None
    high: float | None = None
    low_percentile: float = 50.0
    high_percentile: float = 75.0
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """From ``begin`` until ``end``, minutes of a day, the latter excluded; where it is not later, on the next day.
    ``days`` are those on which it begins, 0 is Monday. ``rate`` None: no limit, 0: nothing."""

    rate: float | None
    begin: int = 0
    end: int = DAY_MINUTES
    days: frozenset[int] = frozenset(range(7))

    def spans(self) -> Iterator[range]:
        """Minutes of a week; those of Sunday night may lie behind its end."""
        length = self.end - self.begin if self.end > self.begin else self.end - self.begin + DAY_MINUTES
        for day in sorted(self.days):
            begin = day * DAY_MINUTES + self.begin
            yield range(begin, begin + length)

    def covers(self, minute: int) -> bool:
        """A minute of the week."""
        return any(minute in span or minute + WEEK_MINUTES in span for span in self.spans())


@dataclass(frozen=True, slots=True)
class Limits:
    """Windows with different rates do not overlap. ``otherwise`` holds outside of all of them."""

    windows: tuple[Window, ...] = ()
    otherwise: float | None = None
    zone: tzinfo = UTC


def limit_at(limits: Limits, moment: datetime) -> float | None:
    """Bytes per second that may be copied ahead at a moment (aware): None is no limit, 0 is nothing."""
    local = moment.astimezone(limits.zone)
    minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
    found = (window.rate for window in limits.windows if window.covers(minute))
    return next(found, limits.otherwise)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many of the newest snapshots, of the newest hours, days, ... that have one; all zero: keep all."""

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: float = 0.0

    @property
    def rules(self) -> Rules:
        """Without any, everything is kept."""
        return Rules(
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
            Span(seconds=self.keep_within),
        )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """By ``schedule`` the newest snapshot of the VM is rehearsed."""

    schedule: Schedule
    order: Order = field(default_factory=Order)


@dataclass(frozen=True, slots=True)
class Policy:
    """``audit`` as in ``backup.complete.Options``: a number of blocks, None: every one. ``volumes``: patterns, see
    ``volumes.selection``. ``rehearsal`` None: none. ``trim``: so often, at most, the guest gives its
    free blocks back before copying ahead; None: never."""

    name: str
    schedule: Schedule
    head_start: HeadStart = HeadStart()
    load: Load = Load()
    limits: Limits = Limits()
    volumes: tuple[str, ...] = ("*",)
    retention: Retention = Retention()
    consistency: Consistency = Consistency.BEST
    audit: int | None = plan.AUDIT_BLOCKS
    hooks: tuple[Hook, ...] = ()
    rehearsal: Rehearsal | None = None
    trim: float | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The names of disks that patterns do not include at all."""

    patterns: tuple[str, ...]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and not selection.includes_disk(self.patterns, name)


@dataclass(frozen=True, slots=True)
class Host:
    """``rounds`` and ``backups``: how many at the same time. ``store_rate``: what all rounds together may send to the
    store. ``appliances``: addresses of those that may read. None: the command line, the environment or a default say
    it. ``restore_into``: below it the server may have snapshots restored; ``rehearsals``: it may have some rehearsed
    here; ``boots``: and some booted; ``metrics``: where Prometheus may ask."""

    repository: str | None = None
    state: Path | None = None
    scratch: Path | None = None
    cache: Path | None = None
    rounds: int = 2
    backups: int = 1
    store_rate: float | None = None
    password_file: Path | None = None
    password_command: str | None = None
    appliances: tuple[str, ...] = ()
    restore_into: Path | None = None
    rehearsals: bool = False
    boots: bool = False
    metrics: Tcp | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The policy of the VMs whose name is ``pattern``, or is matched by it; None: these are not backed up.
    ``place`` is ``FILE:LINE``. ``remote``: the server says so, and this host's own come first."""

    pattern: str
    policy: str | None
    place: str
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """What ``files`` say together. ``default`` is the policy of VMs that nothing names; None: these have none, which is
    ``decided`` where a file says so. ``server``: the version of what the server says that is in it; ``overridden``:
    what of that does not hold here. ``refused``: the version that is kept and cannot be used, and why; ``said``: all
    that the server says, as far as this goes by it."""

    file: Path
    files: tuple[Path, ...]
    host: Host = Host()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    assignments: tuple[Assignment, ...] = ()
    default: str | None = None
    warnings: tuple[str, ...] = ()
    decided: bool = False
    server: str = ""
    overridden: tuple[str, ...] = ()
    refused: tuple[str, str] = ("", "")
    said: Config | None = None


def assignment_of(config: Config, vm: str) -> Assignment | None:
    """What names the VM: its exact name, or the one pattern that matches. Raises ``Usage`` if several do."""
    found = [each for each in config.assignments if fnmatch.fnmatchcase(vm, each.pattern)]
    found = [each for each in found if not each.remote] or found
    exact = [each for each in found if each.pattern == vm]
    if exact or not found:
        return exact[0] if exact else None
    if len(found) > 1:
        named = " and ".join(f'"{each.pattern}" ({each.place})' for each in found)
        raise errors.Usage(
            f"Several patterns name the VM {vm}: {named}. Give it an entry of its own, [vm.{_key(vm)}], "
            "or make the patterns exclude each other.",
            vm=vm,
            patterns=[each.pattern for each in found],
        )
    return found[0]


def is_pattern(name: str) -> bool:
    """Whether it may match others than the VM of this very name."""
    return any(each in name for each in "*?[")


def _key(name: str) -> str:
    """As TOML wants it."""
    return f'"{name}"' if "." in name else name


def policy_of(config: Config, vm: str) -> Policy | None:
    """None: this VM is not backed up. Raises ``Usage`` if several patterns match."""
    assigned = assignment_of(config, vm)
    name = config.default if assigned is None else assigned.policy
    return None if name is None else config.policies[name]
