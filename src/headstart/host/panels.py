"""The panels of a VM's picture, one above the other over the same time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from headstart import units
from headstart.host import axes, columns, svg
from headstart.host.account import Account
from headstart.host.axes import Scale, Times, Units
from headstart.host.columns import Column

INK, FAINT, PALE, GRID, BLANK = "#1f2933", "#66788a", "#a3b1be", "#e1e7ec", "#f1f4f6"
REMAINING, DEFERRED, DIRTY = "#e07a5f", "#f6d5c9", "#33475b"
COPIED, LATENCY, FAILED, INCOMPLETE = "#2f6fde", "#8a63b8", "#c81e3a", "#e0a100"
STATES = {
    "idle": "#4caf7a",
    "paced": "#f0b429",
    "halted": "#d1495b",
    "waiting": "#b8c4ce",
    "paused": "#9b7fc7",
    "unreachable": "#4a5561",
    "backup": "#2f6fde",
    "publish": "#7fb0f5",
    "failed": "#8b1e2d",
}
#: Of states that a later version has.
OTHER_STATE = "#8fa1b3"
#: A place in the row of legends, and how wide its letters are about.
SWATCH, LETTER = 11, 6.2
STRIP = 10
#: Below these, differences are not worth being seen.
_LEAST_BYTES, _LEAST_RATE, _LEAST_LATENCY, _LEAST_WINDOW = units.MIB, units.MIB, 0.001, 0.001


@dataclass(frozen=True, slots=True)
class Panel:
    """``draws`` what stands between ``top`` and ``bottom``; ``legend``: colour and meaning."""

    title: str
    legend: tuple[tuple[str, str], ...]
    height: float
    draws: Callable[[Times, float, float], Iterable[str]]


def _grid(across: Times, scale: Scale, count: int, given: Units) -> Iterator[str]:
    for value, label in scale.ticks(count, given):
        y = scale(value)
        yield svg.line([(across.left, y), (across.right, y)], GRID)
        yield svg.text(across.left - 8, y + 4, label, "faint", "end")


def _steps(across: Times, stretch: Sequence[Column], up: Callable[[Column], float]) -> list[svg.Point]:
    """As wide as each column; those of the same height are one."""
    points: list[svg.Point] = []
    for y, group in itertools.groupby(stretch, lambda column: round(up(column), 1)):
        same = list(group)
        points += [(across(same[0].begin), y), (across(same[-1].end), y)]
    return points


def _curve(across: Times, part: Sequence[Column], up: Callable[[Column], float]) -> list[svg.Point]:
    """From middle to middle; as long as the time that was measured."""
    middles = [(across((each.begin + each.end) / 2), up(each)) for each in part]
    return [(across(part[0].begin), middles[0][1]), *middles, (across(part[-1].end), middles[-1][1])]


# -- bytes


def of_bytes(found: Sequence[Sequence[Column]], rounds: Sequence[Account]) -> Panel:
    most = max(
        [_LEAST_BYTES, *(column.remaining for each in found for column in each), *(each.dirty or 0 for each in rounds)]
    )

    def draws(across: Times, top: float, bottom: float) -> Iterator[str]:
        up = Scale(most * 1.06, bottom, top)
        yield from _grid(across, up, 4, axes.BYTES)
        for stretch in found:
            yield svg.area(_steps(across, stretch, lambda column: up(column.remaining)), bottom, DEFERRED)
            wanted = _steps(across, stretch, lambda column: up(column.remaining - column.deferred))
            yield svg.area(wanted, bottom, REMAINING)
        yield from _rounds(across, up, rounds, bottom)

    legend = ((REMAINING, "remaining"), (DEFERRED, "remaining, put off on purpose"), (DIRTY, "dirty, found by a round"))
    return Panel("To copy", (*legend, *_failed(rounds, "failed round")), 170, draws)


def _rounds(across: Times, up: Scale, rounds: Sequence[Account], bottom: float) -> Iterator[str]:
    narrowest = 2.0 if len(rounds) < 200 else 1.0
    for each in _one_a_pixel(across, rounds):
        left = across(each.begun)
        if each.dirty is not None:
            width = min(max(narrowest, across(each.ended or each.begun) - left), 8.0)
            height = max(1.5, bottom - up(each.dirty))
            yield svg.rect(left, bottom - height, width, height, DIRTY, 0.85, _told(across, each))
        if each.error is not None:
            yield svg.cross(left, bottom, 4, FAILED, _told(across, each))


def _one_a_pixel(across: Times, rounds: Sequence[Account]) -> Iterable[Account]:
    """The largest; but one that failed before all others."""
    largest: dict[int, Account] = {}
    for each in sorted(rounds, key=lambda account: (account.error is not None, account.dirty or 0.0)):
        largest[round(across(each.begun))] = each
    return largest.values()


def _failed(accounts: Iterable[Account], label: str) -> tuple[tuple[str, str], ...]:
    return ((FAILED, label),) if any(each.error is not None for each in accounts) else ()


def _told(across: Times, each: Account) -> str:
    """What is shown when somebody points at it."""
    copied = "residue" if each.verb == "backup" else "copied"
    sizes = (("dirty", each.dirty), (copied, each.copied), ("remaining", each.remaining))
    told = [f"{name} {_size(size)}" for name, size in sizes if size is not None]
    window = [] if each.window is None else [f"window {units.format_seconds(each.window)}"]
    return ", ".join([f"{each.verb} {across.clock(each.moment)}", *told, *window, each.result])


def _size(count: float) -> str:
    return units.format_bytes(round(count))


# -- rate


def of_rate(found: Sequence[Sequence[Column]]) -> Panel:
    most = max([_LEAST_RATE, *(column.rate for each in found for column in each)])

    def draws(across: Times, top: float, bottom: float) -> Iterator[str]:
        up = Scale(most * 1.06, bottom, top)
        yield from _grid(across, up, 3, axes.RATES)
        for stretch in found:
            for copying in columns.known(stretch, lambda column: column.rate or None):
                yield svg.area(_steps(across, copying, lambda column: up(column.rate)), bottom, COPIED, 0.85)

    return Panel("Rate of copying ahead", (), 80, draws)


# -- load


def of_load(found: Sequence[Sequence[Column]], backups: Sequence[Account]) -> Panel:
    bands = [band for stretch in found for band in columns.states(stretch)]
    # Nothing is measured during a backup, and nobody notes a minute then.
    bands += [(each.begun, each.ended, "backup") for each in backups if each.ended is not None]
    latencies = [part for stretch in found for part in columns.known(stretch, lambda column: column.latency)]
    slowest = max([_LEAST_LATENCY, *(column.latency or 0.0 for part in latencies for column in part)])

    def draws(across: Times, top: float, bottom: float) -> Iterator[str]:
        for begin, end, state in bands:
            yield from _band(across, (begin, end), state, top, bottom)
        up, slow = Scale(1.0, bottom - STRIP, top), Scale(slowest * 1.3, bottom - STRIP, top)
        yield from _shares(across, up)
        for part in latencies:
            yield svg.line(_curve(across, part, lambda column: slow(column.latency or 0.0)), LATENCY)
        if latencies:
            for value, label in slow.ticks(2, axes.SECONDS):
                yield svg.text(across.right + 8, slow(value) + 4, label, "faint", colour=LATENCY)
        for stretch in found:
            for part in columns.known(stretch, lambda column: column.load):
                yield svg.line(_curve(across, part, lambda column: up(column.load or 0.0)), INK, 1.4)

    seen = {state for _, _, state in bands}
    shown = tuple((colour, state) for state, colour in STATES.items() if state in seen)
    shown += ((OTHER_STATE, "another state"),) if seen - set(STATES) else ()
    thin = ((LATENCY, "latency of its writes"),) if latencies else ()
    return Panel("Load", ((INK, "load"), *thin, *shown), 130, draws)


def _band(across: Times, span: tuple[float, float], state: str, top: float, bottom: float) -> Iterator[str]:
    left, right = across(span[0]), across(span[1])
    if span[1] <= across.since or span[0] >= across.until:
        return
    width, colour = max(1.0, right - left), STATES.get(state, OTHER_STATE)
    title = f"{state} {across.clock(span[0])} to {across.clock(span[1])}"
    pale = svg.rect(left, top, width, bottom - STRIP - top, colour, 0.13)
    yield svg.group([pale, svg.rect(left, bottom - STRIP, width, STRIP, colour)], title)


def _shares(across: Times, up: Scale) -> Iterator[str]:
    for value in (0.0, 0.5, 1.0):
        yield svg.line([(across.left, up(value)), (across.right, up(value))], GRID)
        yield svg.text(across.left - 8, up(value) + 4, f"{value:.0%}", "faint", "end")


# -- windows


def of_windows(backups: Sequence[Account]) -> Panel:
    longest = max((each.window for each in backups if each.window is not None), default=None)

    def draws(across: Times, top: float, bottom: float) -> Iterator[str]:
        # Above the bars there is room for two lines.
        up = Scale(max(_LEAST_WINDOW, longest or 0.0), bottom, top + 32)
        if longest is not None:
            yield from _grid(across, up, 2, axes.SECONDS)
        # What failed stands before the one that came after it.
        for each in sorted(backups, key=lambda account: not account.succeeded):
            yield _mark(across, up, each)
        yield from _labels(across, up, backups)
        if not backups:
            yield svg.text((across.left + across.right) / 2, (top + bottom) / 2 + 4, "no backup", "faint", "middle")

    made = [(COPIED, "window, and what was read in it")]
    if any(each.succeeded and each.failures for each in backups):
        made.append((INCOMPLETE, "incomplete"))
    made += _failed(backups, "failed")
    if any(each.error is None and each.ended is None for each in backups):
        made.append((FAINT, "did not end"))
    return Panel("Backups", tuple(made), 100, draws)


def _mark(across: Times, up: Scale, each: Account) -> str:
    x, told = across(each.moment), _told(across, each)
    if each.error is not None:
        return svg.cross(x, up.begin, 5, FAILED, told)
    if each.ended is None:
        return svg.ring(x, up.begin, 4.5, FAINT, told)
    y = min(up(each.window or 0.0), up.begin - 2)
    return svg.rect(x - 3, y, 6, up.begin - y, INCOMPLETE if each.failures else COPIED, title=told)


def _labels(across: Times, up: Scale, backups: Sequence[Account]) -> Iterator[str]:
    """Where they cover neither each other nor a bar. The longest windows come first: the other bars end below."""
    taken: list[tuple[float, float]] = []
    for each in sorted(backups, key=lambda account: (not account.succeeded, -(account.window or 0.0))):
        lines = _label(each)
        half = max(map(len, lines)) * LETTER / 2 + 3
        place = across(each.moment)
        x = min(max(place, across.left + half), across.right - half)
        free = not any(x - half < right and left < x + half for left, right in taken)
        taken.append((x - half, x + half) if free else (place - 3, place + 3))
        if not free:
            continue
        y = up(each.window or 0.0) - (8 if each.succeeded else 12)
        for number, told in enumerate(reversed(lines)):
            yield svg.text(x, y - 14 * number, told, "label", "middle")


def _label(each: Account) -> tuple[str, ...]:
    if not each.succeeded:
        return ("failed" if each.error is not None else "did not end",)
    told = () if each.copied is None else (_size(each.copied),)
    return ("?" if each.window is None else units.format_seconds(each.window), *told)
