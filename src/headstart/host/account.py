"""What the report of a run tells, as far as it can be believed: it may be of another version, or of a run that died."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headstart.state.values import Run

#: What is more is no number of bytes or seconds.
LARGEST = float(2**63)


@dataclass(frozen=True, slots=True)
class Account:
    """Bytes and seconds; None: not told. ``dirty``: identified by a round, or changed since the last snapshot.
    ``copied``: ahead, or inside the window. ``moment``: that it is shown at, for a backup its point in time."""

    verb: str
    begun: float
    ended: float | None
    moment: float
    dirty: float | None = None
    copied: float | None = None
    remaining: float | None = None
    window: float | None = None
    by: str = ""
    snapshot: str = ""
    halted: str = ""
    failures: tuple[str, ...] = ()
    error: str | None = None
    #: Where most of what changed is: a mount point, or else a volume.
    mostly: str = ""

    @property
    def succeeded(self) -> bool:
        return self.error is None and self.ended is not None

    @property
    def result(self) -> str:
        """For people."""
        if self.error is not None:
            return f"failed: {self.error}"
        if self.ended is None:
            return "did not end"
        if self.failures:
            return f"incomplete: {'; '.join(self.failures)}"
        if self.halted:
            return f"halted: {self.halted}"
        where = f", mostly in {self.mostly}" if self.mostly else ""
        return f"snapshot {self.snapshot[:12]}{where}" if self.snapshot else "done"


def of(run: Run) -> Account:
    report = run.report
    disks = report.get("disks")
    disks = [each for each in disks if isinstance(each, dict)] if isinstance(disks, list | tuple) else []
    begun, created = number(run.begun) or 0.0, number(report.get("created"))
    ended = number(run.ended)
    told = run.verb == "backup" and ended is not None and "error" not in report
    return Account(
        run.verb,
        begun,
        # The clock may have been put back.
        None if ended is None else max(begun, ended),
        begun if created is None else created,
        _sum(disks, "changed_bytes") if told else number(report.get("identified_bytes")),
        _sum(disks, "residue_bytes") if told else number(report.get("copied_bytes")),
        number(report.get("remaining_bytes")),
        number(report.get("window_seconds")),
        _text(report.get("transport")),
        _text(report.get("snapshot")),
        _text(report.get("halted")),
        _texts(report.get("failures")),
        None if report.get("error") is None else str(report["error"]),
        _mostly(report.get("volumes")),
    )


def _mostly(told: object) -> str:
    volumes = [each for each in told if isinstance(each, dict)] if isinstance(told, list | tuple) else []
    volume = max(volumes, key=lambda each: number(each.get("changed_bytes")) or 0.0, default={})
    if not number(volume.get("changed_bytes")):
        return ""
    mounted = _texts(volume.get("mounted"))
    return mounted[0] if mounted else _text(volume.get("name"))


def number(told: object) -> float | None:
    """Not negative and not too large."""
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    if isinstance(told, float) and not math.isfinite(told):
        return None
    return float(told) if 0 <= told <= LARGEST else None


def _sum(disks: Iterable[dict[str, Any]], key: str) -> float:
    return sum(number(disk.get(key)) or 0.0 for disk in disks)


def _text(told: object) -> str:
    return told if isinstance(told, str) else ""


def _texts(told: object) -> tuple[str, ...]:
    return tuple(map(str, told)) if isinstance(told, list | tuple) else ()
