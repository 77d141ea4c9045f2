"""Whether a VM is protected, and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart.server.pages import standing, view
from headstart.server.pages.doubts import Doubt
from headstart.server.pages.standing import Known, Level
from tests.kit import machine

NOW = 1_800_000_000.0


def known(
    told: object,
    seen: float | None = NOW,
    success: float | None = NOW - 3600,
    error: str | None = None,
    told_at: float | None = None,
) -> Known:
    """``seen``: the host; ``told_at``: when it told of the VM, if that is longer ago."""
    moment = told_at if told_at is not None else seen if seen is not None else NOW
    return Known(view.of(told), moment, seen, success, error)


def told(**changes: object) -> dict[str, object]:
    return machine.view(**{"due": NOW + 3600, **changes})


DOUBT = Doubt("Damaged", "of yesterday")
DAY = 86400.0
BACKING_UP = {"verb": "backup", "since": NOW - 5, "what": "residue", "done": 1, "total": 2}
FOR_DAYS = {**BACKING_UP, "since": NOW - 30 * DAY}


@pytest.mark.parametrize(
    ("given", "level", "title", "why"),
    [
        (known(told()), Level.GOOD, "Protected", ""),
        (known(None), Level.OFF, "No policy", "60 min old"),
        (known(None, success=None), Level.OFF, "No policy", "No policy names it."),
        (known(told(state="paused")), Level.BAD, "Paused", "resumes"),
        (known(told(), error="The disk is full."), Level.BAD, "Backup failed", "The disk is full."),
        (known(told(), error=""), Level.BAD, "Backup failed", "did not say why"),
        (known(told(), success=None), Level.BAD, "No backup yet", "due in 60 min"),
        (known(told(due=NOW - 10), success=None), Level.BAD, "No backup yet", "due now"),
        (known(told(doing=BACKING_UP), success=None), Level.WARN, "First backup", "under way"),
        (known(told(due=NOW - 7200)), Level.BAD, "Overdue", "due since 2 h"),
        (known(told(due=NOW - 600)), Level.GOOD, "Protected", ""),
        (known(told(due=NOW - 7200, doing=BACKING_UP)), Level.GOOD, "Protected", ""),
        # It is no excuse for ever.
        (known(told(due=NOW - 30 * DAY, doing=FOR_DAYS)), Level.BAD, "Overdue", "30 d. One is under way for 30 d."),
        (known(told(due=NOW - 7200, doing={**FOR_DAYS, "verb": "precopy"})), Level.BAD, "Overdue", "due since 2 h"),
        (known(told(doing=FOR_DAYS), success=None), Level.WARN, "First backup", "under way"),
        # A host that died in the middle of it, or one that does not tell of it any longer.
        (known(told(due=NOW - 7200, doing=BACKING_UP), seen=NOW - 3600), Level.BAD, "Host away", "due since 2 h"),
        (known(told(doing=BACKING_UP), told_at=NOW - 3600), Level.WARN, "Not told of", "remove it here"),
        (known(told(due=NOW - 7200, doing=BACKING_UP), told_at=NOW - 3600), Level.BAD, "Overdue", "any longer"),
        (known(told(doing=BACKING_UP), told_at=NOW - 3600, success=None), Level.BAD, "No backup yet", "due in"),
        (known(told(), told_at=NOW - 600), Level.GOOD, "Protected", ""),
        (known(told(), seen=NOW - 3600), Level.WARN, "Host away", "60 min ago"),
        (known(told(due=NOW - 7200), seen=NOW - 10800), Level.BAD, "Host away", "due since 2 h"),
        (known(told(), seen=None, success=None), Level.BAD, "Host away", "never heard of"),
        (known(told(due=None)), Level.WARN, "Nothing to come", ""),
        (known(told(missed=True)), Level.WARN, "Missed", ""),
        (known(told(state="unreachable", reason="no monitor")), Level.WARN, "VM unreachable", "no monitor"),
        (known(told(forecast={"warnings": ["too large"]})), Level.WARN, "Will not fit", "too large"),
        (replace(known(told()), doubt=DOUBT), Level.WARN, "Damaged", "of yesterday"),
        (replace(known(told(due=NOW - 7200)), doubt=DOUBT), Level.BAD, "Overdue", ""),
        (replace(known(None), doubt=DOUBT), Level.OFF, "No policy", ""),
    ],
)
def test_it_says_why(given: Known, level: Level, title: str, why: str) -> None:
    found = standing.of(given, NOW)
    assert (found.level, found.title) == (level, title)
    assert why in found.why


@pytest.mark.parametrize(
    "hostile",
    [
        {"state": 7, "due": "soon", "marks": [], "forecast": "x", "doing": []},
        {"due": float("inf"), "remaining_bytes": -1, "load": "1", "doing": {"verb": "backup", "since": None}},
        {"forecast": {"warnings": [None, {}], "window_seconds": {"low": 1}}, "rate": True},
    ],
)
def test_what_a_host_says_is_read_with_care(hostile: dict[str, object]) -> None:
    found = view.of(hostile)
    assert found is not None
    assert found.window is None and found.doing is None and found.remaining == 0.0
    assert standing.of(Known(found, NOW, NOW, NOW, None), NOW).title
