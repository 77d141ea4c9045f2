"""Configurations as files: what they mean, every mistake in them with its line, and whom they are believed from."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headstart import errors
from headstart.backup import hooks, plan
from headstart.backup.hooks import Hook
from headstart.backup.transport import Transport
from headstart.host import config, document, tables
from headstart.host.policy import (
    Assignment,
    Config,
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
from headstart.restore.rehearsing.rehearsal import Order
from headstart.restore.rehearsing.signs import Awaited

DOCUMENT = Path(__file__).parents[2] / "docs" / "policies.md"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
WORKDAYS = frozenset(range(5))
#: A policy that is right; what is tried comes behind it.
RIGHT = '[policy.a]\nschedule = { calendar = "daily", timezone = "UTC" }\n'


def write(folder: Path, text: str, **more: str) -> Path:
    """The file, and those of ``conf.d`` by name."""
    file = folder / "headstart.toml"
    file.write_text(text)
    file.chmod(0o600)
    for name, content in more.items():
        (folder / "conf.d").mkdir(mode=0o755, exist_ok=True)
        (folder / "conf.d" / f"{name}.toml").write_text(content)
    return file


def load(folder: Path, text: str, **more: str) -> Config:
    return config.load(write(folder, text, **more), NOW)


def mistakes(folder: Path, text: str, **more: str) -> list[str]:
    """``LINE: KEY: MESSAGE``, with the name of the file before it if it is not the first."""
    file = write(folder, text, **more)
    with pytest.raises(errors.Usage) as caught:
        config.load(file, NOW, written=True)
    first, *lines = str(caught.value).splitlines()
    assert re.fullmatch(r"The configuration has (a mistake|\d+ mistakes):", first)
    facts: Any = caught.value.facts["mistakes"]
    assert len(facts) == len(lines)
    return [line.removeprefix(f"{file}:").removeprefix(f"{folder}/conf.d/") for line in lines]


# -- what it means


def test_the_documented_example(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    found = load(tmp_path, example)
    file = tmp_path / "headstart.toml"
    lines = {row: number for number, row in enumerate(example.splitlines(), 1)}
    pattern = '[vm."db-*"]'
    limits = Limits(
        (Window(0.0, 480, 720, WORKDAYS), Window(None, 1320, 300)),
        40.0 * 1024**2,
        BERLIN,
    )
    nightly = Policy(
        "nightly",
        Schedule(("Mon..Fri 02:30",), BERLIN, 1800.0, True),
        HeadStart((Transport.AGENT, Transport.HOST), 8 * 3600.0, 900.0),
        Load(0.3, 0.7, 50.0, 75.0, 0.02),
        limits,
        ("*", "!swap"),
        Retention(keep_daily=14, keep_weekly=8, keep_within=3 * 86400.0),
        Consistency.FILESYSTEM,
        plan.AUDIT_BLOCKS,
        (
            Hook("before-freeze", "/etc/headstart/hooks/announce"),
            Hook("after-publish", "/etc/headstart/hooks/report"),
            Hook("after-publish", "logger -t headstart published"),
        ),
        Rehearsal(Schedule(("Sun 05:00",), BERLIN), Order(checks=("service:postgresql",))),
    )
    assert found.policies["nightly"] == nightly
    assert found.policies["frequent"].head_start.interval == 180.0
    assert found.policies["frequent"].audit == 500
    assert found.host == Host(
        repository="/srv/backups", store_rate=80.0 * 1024**2, password_file=Path("/etc/headstart/password")
    )
    assert found.assignments == (
        Assignment("db-*", "frequent", f"{file}:{lines[pattern]}"),
        Assignment("db-test", None, f"{file}:{lines['[vm.db-test]']}"),
    )
    assert (found.file, found.files, found.default, found.warnings) == (file, (file,), "nightly", ())


def test_every_key_is_documented() -> None:
    text = DOCUMENT.read_text()
    for table in (
        tables.HostTable,
        tables.PolicyTable,
        tables.ScheduleTable,
        tables.HeadStartTable,
        tables.LoadTable,
        tables.LimitTable,
        tables.RetentionTable,
        tables.HooksTable,
        tables.RehearsalTable,
    ):
        for key in tables.fields(table):
            assert f"`{key}`" in text, f"{table.__name__}: {key}"


def test_hooks_are_those_of_a_backup() -> None:
    assert tuple(tables.fields(tables.HooksTable)) == hooks.EVENTS


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    found = load(tmp_path, '[policy.default]\nschedule.calendar = "daily"\n')
    assert found.policies == {"default": Policy("default", Schedule(("daily",), BERLIN), limits=Limits(zone=BERLIN))}
    assert (found.host, found.default, found.assignments) == (Host(), "default", ())


def test_nothing_at_all(tmp_path: Path) -> None:
    assert load(tmp_path, "").policies == {}


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("consistency = 'crash'", "consistency", Consistency.CRASH),
        ("consistency = 'best'", "consistency", Consistency.BEST),
        ("audit = 'all'", "audit", None),
        ("audit = 'none'", "audit", 0),
        ("audit = 0", "audit", 0),
        ("audit = 12", "audit", 12),
        ("head_start.transports = []", "head_start", HeadStart(())),
        ("head_start.transports = ['host']", "head_start", HeadStart((Transport.HOST,))),
        ("head_start.interval = '1h 30min'", "head_start", HeadStart(interval=5400.0)),
        ("head_start.interval = '1.5 h'", "head_start", HeadStart(interval=5400.0)),
        ("head_start.interval = '90m'", "head_start", HeadStart(interval=5400.0)),
        ("head_start.after_false_audit = 'report'", "head_start", HeadStart(after_false_audit=FalseAudit.REPORT)),
        ("head_start.after_false_audit = 'distrust'", "head_start", HeadStart()),
        ("head_start.begin_before = '1d'", "head_start", HeadStart(begin_before=86400.0)),
        ("load.latency = '250ms'", "load", Load(latency=0.25)),
        ("load = { low = 0, high = 1 }", "load", Load(0.0, 1.0)),
        ("load.low_percentile = 10", "load", Load(low_percentile=10.0)),
        ("limits = [{ rate = '1.5MB/s' }]", "limits", Limits((), 1.5e6, UTC_ZONE)),
        ("limits = [{ rate = '2 GiB/s', days = 'Sat..Mon, wed' }]", "limits",
         Limits((Window(2.0 * 1024**3, days=frozenset({5, 6, 0, 2})),), None, UTC_ZONE)),
        ("limits = [{ rate = 0, from = '8:00', until = '24:00' }]", "limits",
         Limits((Window(0.0, 480, 1440),), None, UTC_ZONE)),
        ("volumes = ['!swap']", "volumes", ("!swap",)),
        ("trim = '7d'", "trim", 7 * 86400.0),
        ("retention.keep_within = '2w'", "retention", Retention(keep_within=14 * 86400.0)),
        ("rehearsal = { calendar = 'Sun 05:00', pattern = 'ready', timeout = '5min', checks = 'port:22', "
         "memory = '2G' }", "rehearsal",
         Rehearsal(Schedule(("Sun 05:00",), UTC_ZONE), Order(Awaited.PATTERN, "ready", 300.0, ("port:22",), 2 << 30))),
        ("hooks.after-thaw = ['a', 'b']", "hooks", (Hook("after-thaw", "a"), Hook("after-thaw", "b"))),
        # Hooks of the user's are not ours to freeze with: an application may be told to write all it has.
        ("consistency = 'crash'\nhooks.before-freeze = 'sync'", "hooks", (Hook("before-freeze", "sync"),)),
    ],
)  # fmt: skip
def test_values(tmp_path: Path, line: str, key: str, value: object) -> None:
    assert getattr(load(tmp_path, f"{RIGHT}{line}\n").policies["a"], key) == value


def test_limits_that_meet_or_agree_do_not_contradict(tmp_path: Path) -> None:
    text = """
        [[policy.a.limits]]
        rate = "1MB/s"
        from = "08:00"
        until = "12:00"
        [[policy.a.limits]]
        rate = "2MB/s"
        from = "12:00"
        until = "08:00"
        days = "Mon..Fri"
        [[policy.a.limits]]
        rate = "1MB/s"
        from = "10:00"
        until = "11:00"
        """
    assert len(load(tmp_path, RIGHT + text).policies["a"].limits.windows) == 3


# -- mistakes

#: What stands behind the policy in lines 1 and 2, and what is said about it.
MISTAKES = [
    # Unknown keys, at every depth.
    ("[hsot]", "3: hsot: there is no such key; did you mean \"host\"?"),
    ("[x]", "3: x: there is no such key. Allowed: host, policy, vm, default"),
    ("[host]\nreposit = 1", "4: host.reposit: there is no such key; did you mean \"repository\"?"),
    ("audits = 1", "3: policy.a.audits: there is no such key; did you mean \"audit\"?"),
    ("load.lwo = 1", "3: policy.a.load.lwo: there is no such key; did you mean \"low\"?"),
    ("[[policy.a.limits]]\nrate = 0\nform = '1:00'\ndays = 'Mon'",
     "5: policy.a.limits[0].form: there is no such key; did you mean \"from\"?"),
    ("hooks.before_freeze = 'x'",
     "3: policy.a.hooks.before_freeze: there is no such key; did you mean \"before-freeze\"?"),
    ("[vm.x]\npolicy = 'a'\nschedule = 'daily'", "5: vm.x.schedule: there is no such key. Allowed: policy"),
    # Types and ranges.
    ("zzz = 1", "3: policy.a.zzz: there is no such key. Allowed: schedule, head_start, load, limits, volumes, "
     "retention, consistency, audit, hooks, rehearsal, trim"),
    ("load = 1", "3: policy.a.load: must be a table, not 1"),
    ("limits = { rate = 0 }", "3: policy.a.limits: must be a list of tables, not a table"),
    ("limits = [1]", "3: policy.a.limits[0]: must be a table, not 1"),
    ("load = { low = 1.5, high = 2 }", ["3: policy.a.load.low: must be a number from 0 to 1, not 1.5",
                                        "3: policy.a.load.high: must be a number from 0 to 1, not 2"]),
    ("load.low = true\nload.high = nan", ["3: policy.a.load.low: must be a number from 0 to 1, not true",
                                          "4: policy.a.load.high: must be a number from 0 to 1, not nan"]),
    ("load.low_percentile = -1", "3: policy.a.load.low_percentile: must be a number from 0 to 100, not -1"),
    ("rehearsal = { calendar = 'daily', checks = ['rm -rf /'] }",
     "3: policy.a.rehearsal.checks: 'rm -rf /' is no check: "
     "there are filesystems, file:/PATH, port:NUMBER and service:NAME."),
    ("rehearsal = { calendar = 'daily', pattern = '(' }",
     "3: policy.a.rehearsal.pattern: '(' is no regular expression: missing ), unterminated subpattern at position 0."),
    ("rehearsal = { calendar = 'daily', memory = 'much' }",
     '3: policy.a.rehearsal.memory: must be a size like "4G", not "much"'),
    ("rehearsal = { calendar = 'daily', pattern = '(ready)?' }",
     "3: policy.a.rehearsal.pattern: '(ready)?' is also in an empty line, and shows nothing: name words that must come."
    ),
    ("rehearsal = { calendar = 'daily', wait_for = 'pattern' }",
     "3: policy.a.rehearsal.wait_for: needs pattern as well: say which words"),
    ("rehearsal = { calendar = 'daily', wait_for = 'agent', pattern = 'x' }",
     "3: policy.a.rehearsal.wait_for: means nothing beside pattern: leave one of them out"),
    ("audit = -1", '3: policy.a.audit: must be a number of blocks, "all" or "none", not -1'),
    ("audit = '5'", '3: policy.a.audit: must be a number of blocks, "all" or "none", not "5"'),
    ("audit = true", '3: policy.a.audit: must be a number of blocks, "all" or "none", not true'),
    ("consistency = 'bets'",
     '3: policy.a.consistency: must be one of "filesystem", "crash", "best", not "bets"; did you mean "best"?'),
    ("consistency = 1", '3: policy.a.consistency: must be one of "filesystem", "crash", "best", not 1'),
    ("head_start.transports = ['agnet']",
     '3: policy.a.head_start.transports: must be one of "agent", "appliance", "host", not "agnet"; '
     'did you mean "agent"?'),
    ("head_start.after_false_audit = 'distrus'",
     '3: policy.a.head_start.after_false_audit: must be one of "distrust", "report", not "distrus"; '
     'did you mean "distrust"?'),
    ("head_start.transports = 'agent'",
     '3: policy.a.head_start.transports: must be a list of "agent", "appliance" and "host", maybe an empty one, '
     'not "agent"'),
    ("head_start.transports = ['host', 'host']", "3: policy.a.head_start.transports: must name each transport once"),
    ("head_start.interval = 15", "3: policy.a.head_start.interval: must be a duration"),
    ("head_start.interval = '15'", "3: policy.a.head_start.interval: must be a duration"),
    ("head_start.interval = '15 parsecs'", "3: policy.a.head_start.interval: must be a duration"),
    ("head_start.interval = '-5min'", "3: policy.a.head_start.interval: must be a duration"),
    ("head_start.interval = '0s'", '3: policy.a.head_start.interval: must be longer than nothing, not "0s"'),
    ("limits = [{ rate = '40MiB' }]", '3: policy.a.limits[0].rate: must be 0, "unlimited", or a rate'),
    ("limits = [{ rate = '40Mib/s' }]", '3: policy.a.limits[0].rate: must be 0, "unlimited", or a rate'),
    ("limits = [{ rate = 5 }]", '3: policy.a.limits[0].rate: must be 0, "unlimited", or a rate'),
    ("limits = [{ rate = false }]", '3: policy.a.limits[0].rate: must be 0, "unlimited", or a rate'),
    ("limits = [{ days = 'Mon' }]", "3: policy.a.limits[0].rate: is missing"),
    ("limits = [{ rate = 0, from = '24:01', until = '8:60' }]",
     ['3: policy.a.limits[0].from: must be a time of day, from "00:00" to "24:00", not "24:01"',
      '3: policy.a.limits[0].until: must be a time of day, from "00:00" to "24:00", not "8:60"']),
    ("limits = [{ rate = 0, days = 'Mon..Frx' }]", "3: policy.a.limits[0].days: must be days of the week"),
    ("limits = [{ rate = 0, days = 'Mon..Tue..Wed' }]", "3: policy.a.limits[0].days: must be days of the week"),
    ("volumes = []", "3: policy.a.volumes: must be a list of patterns"),
    ("volumes = '*'", "3: policy.a.volumes: must be a list of patterns"),
    ("volumes = ['!']", "3: policy.a.volumes: must be a list of patterns"),
    ("retention.keep_last = 0", "3: policy.a.retention.keep_last: must be a whole number, 1 or more, not 0"),
    ("retention.keep_daily = 1.5", "3: policy.a.retention.keep_daily: must be a whole number, 1 or more, not 1.5"),
    ("hooks.after-thaw = ''", "3: policy.a.hooks.after-thaw: must be text, or a list of texts, none of them empty"),
    ("hooks.after-thaw = []", "3: policy.a.hooks.after-thaw: must be text, or a list of texts, none of them empty"),
    ("[host]\nrounds = 0\nbackups = '1'",
     ["4: host.rounds: must be a whole number, 1 or more, not 0",
      '5: host.backups: must be a whole number, 1 or more, not "1"']),
    ("[host]\nstate = 'state'", '4: host.state: must be an absolute path, not "state"'),
    ("[host]\nrepository = 'backups'", '4: host.repository: must be an absolute path or a URL, not "backups"'),
    (
        'head_start.transports = ["appliance"]',
        '1: policy.a: head_start.transports names "appliance", and no appliances stand in [host]',
    ),
    (
        '[host]\nappliances = ["somewhere"]',
        "4: host.appliances: 'somewhere' is no address of an appliance. Give tcp:HOST:PORT[,monitor=PATH],keys=DIR.",
    ),
    (
        "[host]\nstore_rate = 0",
        "4: host.store_rate: must be a rate of at least 1MiB/s; leave it out for no limit, not 0",
    ),
    (
        '[host]\nstore_rate = "1000KiB/s"',
        '4: host.store_rate: must be a rate of at least 1MiB/s; leave it out for no limit, not "1000KiB/s"',
    ),
    ("[host]\npassword_file = '/x'\npassword_command = 'x'",
     "5: host.password_command: and password_file are two ways to the same password: leave one out"),
    ("[host]\npassword = 'secret'", "4: host.password: there is no such key; did you mean \"password_file\"?"),
    # Schedules.
    ("[policy.b]", "3: policy.b.schedule: is missing"),
    ("[policy.b]\nschedule = {}", "4: policy.b.schedule.calendar: is missing"),
    ("[policy.b]\nschedule.calendar = 'dayly'",
     "4: policy.b.schedule.calendar: \"dayly\" is no calendar expression of systemd's (bad day-of-week)"),
    ("[policy.b]\nschedule.calendar = ['daily', '25:00', 'Mon 02:00 Europe/Berlin']",
     "4: policy.b.schedule.calendar: \"25:00\" is no calendar expression of systemd's (bad hour); \"Mon 02:00 "
     "Europe/Berlin\" is no calendar expression of systemd's (a time zone stands in timezone, not here)"),
    ("[policy.b]\nschedule.calendar = []", "4: policy.b.schedule.calendar: must be text, or a list of texts"),
    ("[policy.b]\nschedule.calendar = 3", "4: policy.b.schedule.calendar: must be text, or a list of texts"),
    ("[policy.b]\nschedule = { calendar = 'daily', timezone = 'Europe/Berln' }",
     '4: policy.b.schedule.timezone: there is no time zone "Europe/Berln"; did you mean "Europe/Berlin"?'),
    ("[policy.b]\nschedule = { calendar = 'daily', timezone = '../UTC' }",
     '4: policy.b.schedule.timezone: there is no time zone "../UTC"'),
    ("[policy.b]\nschedule = { calendar = 'daily', timezone = 1 }",
     "4: policy.b.schedule.timezone: must be the name of a time zone"),
    ("[policy.b]\nschedule = { calendar = 'daily', missed = 'yes' }",
     '4: policy.b.schedule.missed: must be true or false, not "yes"'),
    ("[policy.b]\nschedule = { calendar = '2027-02-30' }",
     '4: policy.b.schedule.calendar: "2027-02-30" can never be due: it never comes'),
    # Contradictions.
    ("[policy.b]\nschedule = { calendar = 'hourly', random_delay = '1h' }",
     "4: policy.b.schedule.random_delay: must be shorter than the time between two backups (1 h 0 min at least)"),
    ("head_start.interval = '25h'", "3: policy.a.head_start.interval: is longer than the time between two backups"),
    ("head_start.begin_before = '25h'",
     "3: policy.a.head_start.begin_before: is longer than the time between two backups"),
    ("head_start = { transports = [], begin_before = '1h', interval = '1h' }",
     ["3: policy.a.head_start.begin_before: says when to copy ahead, but transports = [] says that nothing is",
      "3: policy.a.head_start.interval: says when to copy ahead, but transports = [] says that nothing is"]),
    ("load = { low = 0.5, high = 0.5 }",
     "3: policy.a.load.low: must be less than high, but 0.5 is not less than 0.5"),
    ("load.low = 0.5", "3: policy.a.load.low: needs high as well"),
    ("load.high = 0.5", "3: policy.a.load.high: needs low as well"),
    ("load = { low = 0.1, high = 0.5, low_percentile = 9 }",
     "3: policy.a.load.low_percentile: means nothing beside low"),
    ("load.high_percentile = 40", "3: policy.a.load.high_percentile: low_percentile must be less than high_percentile"),
    ("limits = [{ rate = 0 }]", "3: policy.a.limits: allow nothing to be copied ahead at any time"),
    ("limits = [{ rate = 0, from = '0:00', until = '12:00' }, { rate = 0, from = '12:00', until = '0:00' }]",
     "3: policy.a.limits: allow nothing to be copied ahead at any time"),
    ("limits = [{ rate = '1MB/s' }, { rate = '2MB/s' }]", "3: policy.a.limits[1]: is the second one without times"),
    ("limits = [{ rate = '1MB/s', from = '08:00' }]", "3: policy.a.limits[0]: needs both from and until, or neither"),
    ("limits = [{ rate = '1MB/s', from = '08:00', until = '08:00' }]",
     "3: policy.a.limits[0]: from and until are the same"),
    ("limits = [{ rate = 0, from = '22:00', until = '06:00', days = 'Sun' }, { rate = '1MB/s', days = 'Mon' }]",
     "3: policy.a.limits[1]: overlaps limits[0], which has another rate (both hold on Monday at 00:00)"),
    # Names.
    ("[vm.web]\npolicy = 'b'", '4: vm.web.policy: there is no policy "b"'),
    ("[policy.nightly]\nschedule.calendar = 'daily'\n[default]\npolicy = 'nigthly'",
     '6: default.policy: there is no policy "nigthly"; did you mean "nightly"?'),
    ("[vm.web]\npolicy = 1", '4: vm.web.policy: must be the name of a policy, or "none", not 1'),
    ("[vm.web]", "3: vm.web.policy: is missing"),
    ("[vm]\nweb = 'a'", '4: vm.web: must be a table, not "a"'),
    ("[policy.none]\nschedule.calendar = 'daily'", "3: policy.none: cannot be the name of a policy"),
    ("[policy.'a b']\nschedule.calendar = 'daily'", '3: policy."a b": cannot be the name of a policy'),
    # TOML.
    ("x = = 1", "3: is not TOML: invalid value, at column 5"),
    ("[policy.a]", "3: is not TOML: cannot declare"),
    ("x = [", "3: is not TOML: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_mistakes(tmp_path: Path, text: str, expected: str | list[str]) -> None:
    found = mistakes(tmp_path, f"{RIGHT}{text}\n")
    wanted = [expected] if isinstance(expected, str) else expected
    assert len(found) == len(wanted), found
    for line, beginning in zip(found, wanted, strict=True):
        assert line.startswith(beginning)


def test_all_mistakes_are_told_in_the_order_of_the_lines(tmp_path: Path) -> None:
    """Also contradictions of a policy that is wrong elsewhere, and what refers to a policy with mistakes."""
    text = """
        [vm.web]
        policy = "b"
        [policy.b]
        audit = "some"
        nothing = 1
        [policy.b.schedule]
        calendar = "2025-02-30"
        timezone = "Nowhere/Nothing"
        [policy.b.load]
        high = 0.1
        low = 0.2
        [[policy.b.limits]]
        rate = "fast"
        [[policy.c.limits]]
        rate = 0
        [default]
        policy = "d"
        """
    found = mistakes(tmp_path, text, later='[policy.a]\nschedule = "daily"')
    assert [line.split(": ")[:2] for line in found] == [
        ["5", "policy.b.audit"],
        ["6", "policy.b.nothing"],
        ["8", "policy.b.schedule.calendar"],
        ["9", "policy.b.schedule.timezone"],
        ["12", "policy.b.load.low"],
        ["14", "policy.b.limits[0].rate"],
        ["15", "policy.c.schedule"],
        ["15", "policy.c.limits"],
        ["18", "default.policy"],
        ["later.toml:2", "policy.a.schedule"],
    ]


def test_facts(tmp_path: Path) -> None:
    file = write(tmp_path, "[host]\nrounds = 0\n")
    with pytest.raises(errors.Usage) as caught:
        config.load(file, NOW)
    assert errors.exit_code(caught.value) == 2
    assert caught.value.facts["mistakes"] == [
        {"file": str(file), "line": 2, "key": "host.rounds", "message": "must be a whole number, 1 or more, not 0"}
    ]


# -- several files


def test_later_files_add(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        f"[host]\nrounds = 3\n{RIGHT}",
        b="[host]\nbackups = 2\n[vm.web]\npolicy = 'c'\n",
        c="[policy.c]\nschedule.calendar = 'hourly'\n[default]\npolicy = 'none'\n",
    )
    assert [file.name for file in found.files] == ["headstart.toml", "b.toml", "c.toml"]
    assert (found.host.rounds, found.host.backups) == (3, 2)
    assert list(found.policies) == ["a", "c"]
    assert found.assignments == (Assignment("web", "c", f"{tmp_path}/conf.d/b.toml:3"),)
    assert found.default is None


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path, RIGHT, x="")
    for name in ("y.toml~", "z.conf", ".hidden.toml"):
        (tmp_path / "conf.d" / name).write_text("wrong")
    assert [each.name for each in config.load(file, NOW).files] == ["headstart.toml", "x.toml"]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (RIGHT, RIGHT, "policy.a: stands in {file}:1 already"),
        ("[host]\nrounds = 1", "[host]\nbackups = 1\nrounds = 1", "host.rounds: stands in {file}:2 already"),
        (f"{RIGHT}[vm.web]\npolicy = 'a'", "[vm.web]\npolicy = 'none'", "vm.web: stands in {file}:3 already"),
        ("[default]\npolicy = 'none'", "[default]\npolicy = 'none'", "default.policy: stands in {file}:2 already"),
    ],
)
def test_twice_in_two_files(tmp_path: Path, first: str, second: str, told: str) -> None:
    [found] = mistakes(tmp_path, first, later=second)
    assert re.match(rf"later\.toml:\d: {re.escape(told.format(file=tmp_path / 'headstart.toml'))}", found)


def test_password_ways_in_two_files(tmp_path: Path) -> None:
    [found] = mistakes(tmp_path, "[host]\npassword_command = 'x'", later="[host]\npassword_file = '/x'")
    assert found.startswith("2: host.password_command: and password_file are two ways")


# -- files that cannot be read, or not be believed


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(errors.Usage, match=r"there is no such file\. Write it \(docs/policies\.md\), or name another"):
        config.load(tmp_path / "headstart.toml", NOW)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "headstart.toml").mkdir()
    with pytest.raises(errors.Usage, match=r"headstart\.toml: cannot be read: Is a directory"):
        config.load(tmp_path / "headstart.toml", NOW)


def test_no_text(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    file.write_bytes(b"[host]\n# \xff\n")
    with pytest.raises(errors.Usage, match=r"headstart\.toml:2: is not text in UTF-8"):
        config.load(file, NOW)


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "[", b="x = ", c="[host]\nrounds = 0")
    assert [re.match(r"(\w+\.toml:)?\d+", each)[0] for each in found] == ["1", "b.toml:1", "c.toml:2"]  # type: ignore[index]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the files belong to counts as root's."""
    if os.geteuid() != 0:
        pytest.skip("files of root's can be made by root only")


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid() or 1000
    monkeypatch.setattr(os, "geteuid", lambda: me)


#: Which place, its mode, and whether that is too much.
MODES = [
    ("headstart.toml", 0o644, False),
    ("headstart.toml", 0o664, True),
    ("headstart.toml", 0o646, True),
    ("conf.d/x.toml", 0o620, True),
    ("conf.d", 0o775, True),
    ("conf.d", 0o1777, True),
    ("", 0o777, True),
    ("", 0o1777, False),
]


@pytest.mark.parametrize("calendar", ["['daily', '2026-11-26 11:00']", "'2026-11-26 11:00'"])
def test_a_date_that_has_passed_takes_nothing_else_away(tmp_path: Path, root: None, calendar: str) -> None:
    """It was right when it was written, and a restart must not refuse all policies for it."""
    file = write(tmp_path, f"{RIGHT}[policy.b]\nschedule = {{ calendar = {calendar}, timezone = 'UTC' }}\n")
    found = config.load(file, NOW)
    assert set(found.policies) == {"a", "b"}
    said = '"2026-11-26 11:00" is not due any more: it came for the last time on 2026-11-26 11:00'
    assert found.warnings == (f"{file}:4: policy.b.schedule.calendar: {said}",)
    (tmp_path / document.FILE).write_text(file.read_text())
    assert document.beside(Config(file, ()), tmp_path, NOW).warnings[0].endswith(said)


def test_dates_that_come_closer_take_nothing_away(tmp_path: Path) -> None:
    """Until the first of them the round was shorter than the longest gap."""
    text = "schedule.calendar = ['2026-11-20', '2026-12-10', '2026-12-11']\nhead_start.interval = '10d'\n"
    document.keep(tmp_path, f"{RIGHT}[policy.b]\n{text}", NOW - timedelta(days=10))
    found = document.beside(Config(tmp_path / "own", ()), tmp_path, NOW)
    assert set(found.policies) == {"a", "b"} and not found.refused[1]
    said = "policy.b.head_start.interval: is longer than the time between two backups"
    assert any(said in each for each in found.warnings)


def test_what_a_server_said_and_cannot_be_used_is_told(tmp_path: Path) -> None:
    own = Config(tmp_path / "headstart.toml", (), default="nightly")
    text = "[policy.a]\nshedule = 1\n"
    (tmp_path / document.FILE).write_text(text)
    found = document.beside(own, tmp_path, NOW)
    version, why = found.refused
    assert version == document.version_of(text) and "shedule" in why
    assert (found.default, found.server, found.policies) == ("nightly", "", {})
    before = Config(tmp_path / document.FILE, (), policies={"b": Policy("b", Schedule(("daily",), UTC))}, server="1")
    found = document.beside(own, tmp_path, NOW, before)
    assert (found.server, set(found.policies), found.refused) == ("1", {"b"}, (version, why))
    (tmp_path / document.FILE).write_bytes(b"\xff")
    assert document.kept(tmp_path) == "" and "UTF-8" in document.beside(own, tmp_path, NOW).refused[1]


@pytest.mark.parametrize(("place", "mode", "refused"), MODES)
def test_root_refuses_what_others_can_write(tmp_path: Path, root: None, place: str, mode: int, refused: bool) -> None:
    file = write(tmp_path, RIGHT, x="")
    (tmp_path / place).chmod(mode)
    if not refused:
        assert config.load(file, NOW).warnings == ()
        return
    with pytest.raises(errors.Usage, match=rf"can be written by others \(mode {mode:04o}\), and has commands that run"):
        config.load(file, NOW)


@pytest.mark.parametrize(("place", "mode", "noted"), MODES)
def test_others_are_warned(tmp_path: Path, somebody: None, place: str, mode: int, noted: bool) -> None:
    file = write(tmp_path, RIGHT, x="")
    (tmp_path / place).chmod(mode)
    found = config.load(file, NOW).warnings
    assert len(found) == noted
    assert all(each.startswith(f"{tmp_path / place} can be written by others") for each in found)


def test_root_refuses_files_of_others(tmp_path: Path, root: None) -> None:
    file = write(tmp_path, RIGHT)
    os.chown(file, 12345, 12345)
    with pytest.raises(errors.Usage, match=r"belongs to another user \(uid 12345\)"):
        config.load(file, NOW)


def test_appliances_are_addresses(tmp_path: Path) -> None:
    two = '"tcp:192.0.2.7:10810,keys=/etc/keys", "tcp:[2001:db8::7]:1,keys=/k"'
    found = load(tmp_path, f'{RIGHT}head_start.transports = ["appliance", "host"]\n[host]\nappliances = [{two}]\n')
    assert found.host.appliances == ("tcp:192.0.2.7:10810,keys=/etc/keys", "tcp:[2001:db8::7]:1,keys=/k")
    assert found.policies["a"].head_start.transports == (Transport.APPLIANCE, Transport.HOST)
