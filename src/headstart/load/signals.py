"""What the sensors say of an interval: shares of what guest and host can do, and how long the guest waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signals:
    """``moment``: the end of the interval, by the host's ``time.monotonic``. ``values`` are between 0 and 1, without
    our own share, by names such as ``guest.cpu``. ``latency`` of the guest's writes, in seconds (see ``outside``). A
    sensor that is not there is named in ``missing``, and has no value."""

    moment: float
    values: Mapping[str, float]
    latency: float | None = None
    missing: tuple[str, ...] = ()


def load(signals: Signals) -> tuple[float, str]:
    """The highest, and its name; 0 and no name where no sensor says anything."""
    return max(((value, name) for name, value in signals.values.items()), default=(0.0, ""))


def together(*parts: Signals) -> Signals:
    """Of the same interval from several places. Where two have the same name the later one counts: what is seen from
    inside of the guest comes after what is seen from outside, because our share is out of it."""
    values = {name: value for part in parts for name, value in part.values.items()}
    known = [part.latency for part in parts if part.latency is not None]
    missing = dict.fromkeys(name for part in parts for name in part.missing if name not in values)
    return Signals(
        moment=max((part.moment for part in parts), default=0.0),
        values=values,
        latency=known[-1] if known else None,
        missing=tuple(missing),
    )


def share(part: float, whole: float) -> float:
    """Between 0 and 1, whatever the parts are."""
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
