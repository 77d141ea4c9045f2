"""The tables of the file as pydantic checks them, and what each of them means.

Kept apart from ``policy``: whoever works with policies does not load pydantic. What stands below a key is what
docs/policies.md says of it.
"""

from __future__ import annotations

import re
from datetime import tzinfo
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headstart.backup import plan
from headstart.backup.hooks import Hook
from headstart.host.keys import (
    AbsolutePath,
    Address,
    Appliances,
    Assigned,
    Audit,
    Calendar,
    Checks,
    Clock,
    Commands,
    Count,
    Days,
    Duration,
    HowConsistent,
    Listen,
    Memory,
    Pattern,
    Percentile,
    PositiveDuration,
    Rate,
    Share,
    SignOfLife,
    StoreRate,
    Text,
    Transports,
    Truth,
    Volumes,
    WhatFollows,
    Zone,
)
from headstart.host.policy import (
    Consistency,
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
from headstart.restore.rehearsing import rehearsal
from headstart.restore.rehearsing.rehearsal import Order
from headstart.restore.rehearsing.signs import Awaited

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ScheduleTable(Table):
    calendar: Calendar
    """Calendar expressions of systemd (`man systemd.time`; `systemd-analyze calendar` explains one): `"daily"`,
    `"Mon..Fri 02:30"`, `"*:0/15"`. No fractions of seconds, and no time zone inside. With a list each of them
    counts."""
    timezone: Zone = Field(default=None, validate_default=True)
    """An IANA name, also for `limits`. Default: the host's."""
    random_delay: Duration = 0.0
    """Each backup begins up to so much later. How much depends on the VM and the moment alone, so that VMs with one
    policy spread out, and a restart changes nothing."""
    missed: Truth = True
    """A backup that came due while the host was off, or nobody ran, is made as soon as somebody does; several missed
    ones are one."""

    def value(self) -> Schedule:
        return Schedule(self.calendar, self.timezone, self.random_delay, self.missed)


class HeadStartTable(Table):
    transports: Transports = HeadStart().transports
    """Who reads what is copied ahead, in the order in which they are tried: the agent where it answers, the
    [appliances](appliance.md) in `[host]` that answer, the host. A disk that the host cannot read is read by the agent
    in any case, one that cannot be offered to appliances by the host. What an appliance loses in the middle of a round
    the host reads, if it is named. `["agent"]` or `["appliance"]`: without it no round is made. `[]`: nothing is copied
    ahead."""
    begin_before: PositiveDuration | None = None
    """Copying begins so long before the next backup and not earlier. The later, the less is copied that changes once
    more; the earlier, the more time there is to find the guest idle. Default: at any time."""
    interval: PositiveDuration = HeadStart().interval
    """From one round to the next."""
    after_false_audit: WhatFollows = HeadStart().after_false_audit
    """What follows when the [audit](security.md) finds false what the agent, or an appliance, delivered. It is
    reported, and all of it is read from outside, in any case. `"distrust"`: then the agent reads nothing for this VM
    until `headstart agent trust NAME`, the appliance nothing for this host until `headstart appliance trust HOST:PORT`.
    `"report"`: it reads on."""

    def value(self) -> HeadStart:
        return HeadStart(self.transports, self.begin_before, self.interval, self.after_false_audit)


class LoadTable(Table):
    low: Share | None = None
    """Below this share of what the VM can do it is copied as fast as the limits allow. With `high`, or neither."""
    high: Share | None = None
    """Above it, nothing is copied."""
    low_percentile: Percentile = Load().low_percentile
    """Without absolute marks: a percentile of what this VM usually does."""
    high_percentile: Percentile = Load().high_percentile
    """The same for the upper mark."""
    latency: PositiveDuration | None = None
    """While the guest's writes take longer, it is copied slower and slower, down to 256 KiB/s; see [load](load.md).
    Default: by what is usual."""

    def value(self) -> Load:
        return Load(self.low, self.high, self.low_percentile, self.high_percentile, self.latency)


class LimitTable(Table):
    rate: Rate
    """0: nothing is copied."""
    begin: Clock | None = Field(default=None, alias="from")
    """With `until`, or neither. Default: the whole day."""
    until: Clock | None = None
    """If it is not later than `from`, it is on the next day. Default: the whole day."""
    days: Days | None = None
    """On which the window begins. Default: all."""

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
    calendar: Calendar
    """As in `schedule`, in its time zone."""
    wait_for: SignOfLife | None = None
    """The sign of life. `"agent"`: qemu-guest-agent or ours answers. `"console"`: `login:` comes on a serial console.
    `"pattern"`: see there. Default: the agent where the VM has a channel for one, else the console."""
    pattern: Pattern = ""
    """A regular expression; words that come on a serial console, within one line. One that an empty line matches is
    refused."""
    timeout: PositiveDuration = rehearsal.SECONDS
    """Until the sign of life."""
    checks: Checks = ()
    """What is asked then, through qemu-guest-agent: `"filesystems"` (at least one is mounted), `"file:/PATH"` (it can
    be read), `"port:NUMBER"` (something listens on this TCP port), `"service:NAME"` (systemd says it is active). There
    are no others: nobody can have commands of his own run in a guest by this. Each has a minute to become true."""
    memory: Memory | None = None
    """Another size for it, such as `"2G"`. Default: what the VM had."""

    def value(self, zone: tzinfo) -> Rehearsal:
        awaited = Awaited.PATTERN if self.pattern else self.wait_for
        order = Order(awaited, self.pattern, self.timeout, self.checks, self.memory)
        return Rehearsal(Schedule(self.calendar, zone), order)


class PolicyTable(Table):
    schedule: ScheduleTable
    """When backups are completed."""
    head_start: HeadStartTable = HeadStartTable()
    """What is copied ahead."""
    load: LoadTable = LoadTable()
    """How much of the guest's peace that may cost."""
    limits: list[LimitTable] = Field(default_factory=list)
    """How fast it may be copied ahead at which time."""
    volumes: Volumes = ("*",)
    """Which disks and volumes are backed up, [see below](#volumes). `"!..."` excludes; where all patterns do that, the
    others are included."""
    retention: RetentionTable = RetentionTable()
    """Which snapshots are kept."""
    consistency: HowConsistent = Consistency.BEST
    """`"filesystem"`: the guest's file systems are frozen (or the VM is off, in whatever way it ended), or the backup
    fails. `"crash"`: they are never frozen. `"best"`: frozen where that is possible."""
    audit: Audit = plan.AUDIT_BLOCKS
    """How many random blocks are compared with the point in time: of those that the agent or appliances delivered, and
    a third of that of all others; see [security](security.md)."""
    hooks: HooksTable = HooksTable()
    """Commands."""
    rehearsal: RehearsalTable | None = None
    """When the newest snapshot is started apart from everything, to see whether it lives."""
    trim: PositiveDuration | None = None
    """So often, at most, and before copying ahead, the guest is asked (through the agent, or qga) to give its free
    blocks back, as `headstart trim` does. Not in the last minute before a backup; what is not done when one is due is
    ended, but for qga, which cannot be stopped and does not freeze until it is done. Default: never."""

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
    repository: Address | None = None
    """Where the backups are, such as `s3://bucket/prefix`; `{host}` in it stands for the name of this host. Here and in
    the next three, the options of the command line come first, then the environment, then the file."""
    state: AbsolutePath | None = None
    """What this host remembers of its VMs. Default: see [cli.md](cli.md)."""
    scratch: AbsolutePath | None = None
    """Scratch files and spool; on a local disk. Default: see [cli.md](cli.md)."""
    cache: AbsolutePath | None = None
    """What it knows of the repository's index. Default: see [cli.md](cli.md)."""
    rounds: Count = Host().rounds
    """How many VMs copy ahead at the same time."""
    backups: Count = Host().backups
    """How many backups are completed at the same time."""
    store_rate: StoreRate | None = None
    """What rounds and backups of all VMs together may send to the repository. Default: no limit."""
    password_file: AbsolutePath | None = None
    """The first line of this file is the repository's password."""
    password_command: Text | None = None
    """The first line that this command prints is. One of the two at most."""
    appliances: Appliances = ()
    """Addresses of [appliances](appliance.md) that may read: `"tcp:HOST:PORT,keys=DIR"`, for a [guest of this
    host](appliance.md#a-guest-of-the-same-host) `"tcp:HOST:PORT,monitor=PATH,keys=DIR"`."""
    restore_into: AbsolutePath | None = None
    """Below it the [server](server-hosts.md#orders) that this host has joined may have snapshots restored, each into a
    new directory. Without it, nowhere."""
    rehearsals: Truth = False
    """Whether the [server](server-hosts.md#orders) may have snapshots of this host's repository rehearsed here."""
    boots: Truth = False
    """Whether the [server](server-restore.md#boot) may have snapshots of this host's repository booted here, one at a
    time and without a network."""
    metrics: Listen | None = None
    """Where Prometheus may ask, such as `"192.0.2.10:9633"`: see [monitoring](monitoring.md). Whoever reaches it is
    answered."""

    def value(self) -> Host:
        return Host(**dict(self))


class AssignmentTable(Table):
    """Of ``[vm.NAME]`` and ``[default]``."""

    policy: Assigned


def fields(table: type[BaseModel]) -> dict[str, Any]:
    """The keys as they are written, with the annotation of each."""
    return {each.alias or name: each.annotation for name, each in table.model_fields.items()}
