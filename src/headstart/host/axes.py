"""Axes of a picture: from values to pixels, and where the ticks are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TypeAlias

from headstart.units import GIB, KIB, MIB, TIB

Units: TypeAlias = tuple[tuple[float, str], ...]

BYTES: Units = ((1, "B"), (KIB, "KiB"), (MIB, "MiB"), (GIB, "GiB"), (TIB, "TiB"))
RATES: Units = tuple((size, f"{name}/s") for size, name in BYTES)
SECONDS: Units = ((0.001, "ms"), (1, "s"), (60, "min"), (3600, "h"))

#: Minutes between two ticks of the time.
_STEPS = (5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)
_MOST_TICKS = 13


@dataclass(frozen=True, slots=True)
class Scale:
    """From 0 at ``begin`` to ``most``, which is above 0, at ``end``. What is more is drawn as ``most``."""

    most: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        return self.begin + min(max(value / self.most, 0.0), 1.0) * (self.end - self.begin)

    def ticks(self, count: int, units: Units) -> list[tuple[float, str]]:
        """At most ``count`` and a 0, at round numbers of the unit that fits."""
        size, name = next((each for each in reversed(units) if each[0] <= self.most), units[0])
        step = round_step(self.most / size / count)
        return [
            (each * step * size, f"{each * step:g} {name}" if each else "0")
            for each in range(count + 1)
            if each * step * size <= self.most
        ]


def round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, ..."""
    power = 10.0 ** (len(str(int(least))) - 1) if least >= 1 else 1.0
    while power > least:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


@dataclass(frozen=True, slots=True)
class Times:
    """Moments (seconds since 1970) from ``since`` to the later ``until``. ``zone`` None: the system's."""

    since: float
    until: float
    left: float
    right: float
    zone: tzinfo | None = None

    def __call__(self, moment: float) -> float:
        share = (moment - self.since) / (self.until - self.since)
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)

    def local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.zone).astimezone(self.zone)

    def clock(self, moment: float, form: str = "%H:%M") -> str:
        return self.local(min(max(moment, self.since), self.until)).strftime(form)

    def ticks(self) -> list[datetime]:
        """Round times of the day, also where the clock is changed."""
        minutes = (self.until - self.since) / 60
        step = next((each for each in _STEPS if minutes / each <= _MOST_TICKS), _STEPS[-1])
        first = -int(-self.since // 60)
        found = (self.local(minute * 60) for minute in range(first, int(self.until // 60) + 1))
        return [each for each in found if (each.hour * 60 + each.minute) % step == 0]
