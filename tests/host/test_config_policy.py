"""What policies mean: limits at a moment, disks by pattern, and which VM has which policy."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from headstart import errors
from headstart.host import policy
from headstart.host.policy import Assignment, Config, Limits, Policy, Schedule, Window

BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = frozenset(range(5))
LIMITS = Limits(
    (
        Window(0.0, 8 * 60, 12 * 60, WORKDAYS),
        Window(None, 22 * 60, 5 * 60),
        Window(7.0, days=frozenset({6}), end=22 * 60, begin=5 * 60),
    ),
    40.0,
    BERLIN,
)


@pytest.mark.parametrize(
    ("moment", "rate"),
    [
        # The 23rd is a Monday.
        ("2026-11-23T07:59", 40.0),
        ("2026-11-23T08:00", 0.0),
        ("2026-11-23T11:59", 0.0),
        ("2026-11-23T12:00", 40.0),
        ("2026-11-23T22:00", None),
        ("2026-11-24T00:00", None),
        ("2026-11-24T04:59", None),
        ("2026-11-24T05:00", 40.0),
        ("2026-11-28T09:00", 40.0),
        ("2026-11-29T09:00", 7.0),
        # From Sunday to Monday.
        ("2026-11-29T23:00", None),
        ("2026-11-30T04:59", None),
        ("2026-11-30T05:00", 40.0),
        # The clock is set: it counts what stands on the wall.
        ("2026-03-29T05:00", 7.0),
        ("2026-10-25T04:59", None),
    ],
)
def test_limit_at(moment: str, rate: float | None) -> None:
    there = datetime.fromisoformat(moment).replace(tzinfo=BERLIN)
    assert policy.limit_at(LIMITS, there) == rate
    assert policy.limit_at(LIMITS, there.astimezone(UTC)) == rate
    assert policy.limit_at(LIMITS, there.astimezone(ZoneInfo("Asia/Tokyo"))) == rate


def test_a_window_belongs_to_the_day_on_which_it_begins() -> None:
    limits = Limits((Window(1.0, 22 * 60, 5 * 60, frozenset({4})),), None, UTC)
    assert policy.limit_at(limits, datetime(2026, 11, 27, 23, tzinfo=UTC)) == 1.0
    assert policy.limit_at(limits, datetime(2026, 11, 28, 4, tzinfo=UTC)) == 1.0
    assert policy.limit_at(limits, datetime(2026, 11, 27, 4, tzinfo=UTC)) is None


def test_no_limits() -> None:
    assert policy.limit_at(Limits(), datetime(2026, 11, 27, tzinfo=UTC)) is None


def config(default: str | None = "nightly", **assigned: str | None) -> Config:
    policies = {name: Policy(name, Schedule(("daily",), UTC)) for name in ("nightly", "often")}
    assignments = tuple(
        Assignment(pattern, name, f"/etc/headstart/headstart.toml:{line}")
        for line, (pattern, name) in enumerate(assigned.items(), 1)
    )
    return Config(Path("x"), (), policies=policies, assignments=assignments, default=default)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web-1", "often"),
        ("web-2", None),
        ("web", "nightly"),
        ("db", None),
        ("DB", "nightly"),
        ("other", "nightly"),
    ],
)
def test_policy_of(name: str, expected: str | None) -> None:
    found = policy.policy_of(config(**{"web-*": "often", "web-2": None, "db": None}), name)
    assert (found.name if found else None) == expected


def test_no_default() -> None:
    assert policy.policy_of(config(default=None), "web") is None


def test_two_patterns_that_match() -> None:
    ambiguous = config(**{"web-*": "often", "*-1": "nightly", "web-1": "often"})
    assert policy.policy_of(ambiguous, "web-1") is ambiguous.policies["often"]
    assert policy.policy_of(ambiguous, "db-1") is ambiguous.policies["nightly"]
    ambiguous = config(**{"web-*": "often", "*.1": "nightly"})
    wanted = (
        'Several patterns name the VM web-a.1: "web-*" (/etc/headstart/headstart.toml:1) and '
        '"*.1" (/etc/headstart/headstart.toml:2). Give it an entry of its own, [vm."web-a.1"],'
    )
    with pytest.raises(errors.Usage, match=re.escape(wanted)):
        policy.policy_of(ambiguous, "web-a.1")


@pytest.mark.parametrize("module", ["policy", "calendar"])
def test_policies_do_without_pydantic(module: str) -> None:
    code = f"import sys, headstart.host.{module}; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
