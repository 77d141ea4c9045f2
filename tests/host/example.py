"""A day that might have been: made-up figures for ``docs/history.svg``. ``python -m tests.host.example`` draws it."""

from __future__ import annotations

import math
import random
from datetime import UTC
from pathlib import Path
from typing import Any

from headstart.host import picture
from headstart.host.picture import History
from headstart.state.series import Minute
from headstart.state.values import Run
from headstart.units import MIB

PLACE = Path(__file__).parents[2] / "docs" / "history.svg"
#: 2026-03-02, a Monday, 18:00 UTC.
UNTIL = 1772474400
SINCE = UNTIL - 24 * 3600
HOUR, MINUTE = 3600, 60
BACKUPS = (SINCE + 4 * HOUR, SINCE + 10 * HOUR, SINCE + 16 * HOUR, SINCE + 22 * HOUR)
#: The host was restarted, and the VM's owner paused it.
AWAY = range(SINCE + 7 * HOUR, SINCE + 7 * HOUR + 40 * MINUTE)
PAUSED = range(SINCE + 18 * HOUR, SINCE + 19 * HOUR)
FAILED = BACKUPS[2]
ROUND = 20 * MINUTE


class Day:
    def __init__(self) -> None:
        self._chance = random.Random(7)
        self.minutes: list[Minute] = []
        self.runs: list[Run] = []
        self._remaining = self._deferred = 0.0
        self._dirty = 0.0

    def live(self) -> None:
        for moment in range(SINCE, UNTIL, MINUTE):
            self._minute(moment)

    def _minute(self, moment: int) -> None:
        load = self._load(moment)
        self._dirty += (9 + 80 * load) * MIB * (0.5 + self._chance.random())
        if moment in BACKUPS:
            self._backup(moment)
        if moment in AWAY:
            return
        if moment % ROUND == 0 and moment not in PAUSED:
            self._round(moment, load)
        state, copied = self._copied(moment, load)
        self._remaining -= copied
        latency = 0.0012 + 0.004 * load**2 + 0.0004 * self._chance.random() + 1e-12 * copied
        kept = latency if load > 0.06 else None
        self.minutes.append(
            Minute(moment, load, kept, state, round(copied), round(self._remaining), round(self._deferred))
        )

    def _load(self, moment: int) -> float:
        """Office hours, and a job at night."""
        hour = moment / HOUR % 24
        office = 0.62 * math.exp(-(((hour - 10.5) / 2.2) ** 2)) + 0.5 * math.exp(-(((hour - 15.2) / 1.6) ** 2))
        job = 0.85 if 1.5 < hour < 2.3 else 0.0
        return min(1.0, 0.05 + max(office, job) + 0.09 * self._chance.random() ** 2)

    def _copied(self, moment: int, load: float) -> tuple[str, float]:
        wanted = max(0.0, self._remaining - self._deferred)
        if moment in PAUSED:
            return "paused", 0.0
        if load > 0.7:
            return "halted", 0.0
        if wanted < MIB:
            return "waiting", 0.0
        rate = 14 if load < 0.25 else 4.5
        return "idle" if load < 0.25 else "paced", min(
            wanted, rate * MIB * MINUTE * (0.7 + 0.3 * self._chance.random())
        )

    def _round(self, moment: int, load: float) -> None:
        dirty, self._dirty = self._dirty, 0.0
        self._remaining += dirty
        nearest = min((at - moment for at in BACKUPS if at > moment), default=6 * HOUR)
        self._deferred = (0.35 if nearest > HOUR else 0.08) * self._remaining
        report = {
            "vm": "web",
            "transport": "agent",
            "identified_bytes": round(dirty),
            "copied_bytes": round(self._remaining - self._deferred),
            "remaining_bytes": round(self._deferred),
        }
        self._ran("precopy", moment + 2, moment + (70 if load < 0.25 else 400), report)

    def _backup(self, moment: int) -> None:
        residue = self._remaining + self._dirty
        if moment == FAILED:
            self._ran("backup", moment, moment + 31, {"error": "The point in time broke: scratch is full."})
            moment += 15 * MINUTE
        disks = [{"name": "system", "changed_bytes": round(6 * residue), "residue_bytes": round(residue)}]
        report = {
            "snapshot": f"{moment:032x}",
            "created": moment + 2.0,
            "window_seconds": 0.4 + residue / (190 * MIB),
            "disks": disks,
        }
        self._ran("backup", moment, moment + 60 + residue / (60 * MIB), report)
        self._remaining = self._deferred = self._dirty = 0.0

    def _ran(self, verb: str, begun: float, ended: float, report: dict[str, Any]) -> None:
        self.runs.append(Run(len(self.runs) + 1, "web", verb, begun, ended, report))


def history() -> History:
    day = Day()
    day.live()
    return History("web", SINCE, UNTIL, day.minutes, day.runs, UTC, "an example: made-up figures")


if __name__ == "__main__":
    PLACE.write_text(picture.draw(history()), encoding="utf-8")
