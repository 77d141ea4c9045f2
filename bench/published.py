"""The figures that were published last, and what became slower, larger or smaller since: ``make bench`` says it.

Ratios are compared, not seconds: ours and the peer's were measured in the same minutes; another machine changes both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.figure import Figure

#: Medians of three runs differ by so much without a reason; processor time and bytes by less.
NOISE, STEADY = 0.15, 0.05
#: Of these more is better.
_RATES = ("MB/s", "MiB/s")
_ROW = re.compile(
    r"^\| (?P<name>[^|]+) \| [\d.]+ (?P<unit>\S+) \| [^|]+ \| (?P<ratio>[\d.]+) \| (?P<peer>[^|]+) \| \d+ \|$"
)

#: By name and peer, without its version.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    peer: str
    before: float
    now: float
    worse: bool

    def __str__(self) -> str:
        word = "worse" if self.worse else "better"
        return f"{word}: {self.name} beside {self.peer}: {self.before:.2f} -> {self.now:.2f} ({self._percent:+.0f} %)"

    @property
    def _percent(self) -> float:
        return 100 * (self.now / self.before - 1)


def read(page: str) -> Mapping[Key, float]:
    """The ratios of a page that ``make bench`` wrote."""
    found = (_ROW.match(line) for line in page.splitlines())
    return {_key(each["name"], each["peer"]): float(each["ratio"]) for each in found if each}


def changes(before: Mapping[Key, float], figures: Sequence[Figure]) -> Iterator[Change]:
    """Beyond the noise, the worse ones first."""
    found = [change for each in figures if (change := _change(before.get(_key(each.name, each.peer_name)), each))]
    yield from sorted(found, key=lambda each: not each.worse)


def _change(before: float | None, figure: Figure) -> Change | None:
    if not before:
        return None
    noise = STEADY if figure.unit == "bytes" or "processor time" in figure.name else NOISE
    # The page has two digits: a small ratio may differ by one of the last.
    if abs(figure.ratio - before) <= max(noise * before, 0.01):
        return None
    worse = (figure.ratio > before) != (figure.unit in _RATES)
    return Change(figure.name, figure.peer_name, before, figure.ratio, worse)


def missing(before: Mapping[Key, float], figures: Sequence[Figure]) -> list[str]:
    """What was published, and was not measured now."""
    now = {_key(each.name, each.peer_name) for each in figures}
    return [f"not measured: {name} beside {peer}" for name, peer in before.keys() - now]


def _key(name: str, peer: str) -> Key:
    return name.strip(), re.sub(r" \d[\d.]*$", "", peer.strip())
