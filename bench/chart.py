"""The picture of the day: what each round found and copied, and the two windows at the same scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from bench.day import Day
from headstart.units import MIB

WIDTH, HEIGHT = 960, 560
LEFT, RIGHT = 76, 936
#: The upper panel: the day.
TOP, BOTTOM = 78, 330
#: The lower panel: the windows.
WINDOWS_TOP, BAR, BAR_STEP = 420, 26, 46
BARS_LEFT = 190

INK, FAINT, GRID = "#1f2933", "#66788a", "#e1e7ec"
CHANGED, IDENTIFIED, COPIED, REMAINING = "#9fb3c8", "#bcd4f6", "#2f6fde", "#d1495b"
STYLE = f"""\
text {{ font: 13px system-ui, "DejaVu Sans", sans-serif; fill: {INK} }}
.title {{ font-size: 17px; font-weight: 600 }}
.faint {{ fill: {FAINT} }}
"""


def draw(head_start: Day, plain: Day) -> str:
    """An SVG document."""
    parts = [*_day(head_start), *_windows(head_start, plain)]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        f'<style>\n{STYLE}</style>\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


class _Scale:
    """From values to pixels."""

    def __init__(self, most: float, begin: float, end: float) -> None:
        self.most = most
        self._begin = begin
        self._factor = (end - begin) / most

    def __call__(self, value: float) -> float:
        return round(self._begin + value * self._factor, 1)

    def ticks(self, count: int) -> list[float]:
        """About ``count`` round numbers from 0 on."""
        step = _round_step(self.most / count)
        return [number * step for number in range(int(self.most / step) + 1)]


def _round_step(wanted: float) -> float:
    power: float = 1.0
    while power * 10 <= wanted:
        power *= 10
    while power > wanted:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted)


def _day(day: Day) -> Iterator[str]:
    window_end = day.window.end - day.began
    across = _Scale(window_end * 1.04, LEFT, RIGHT)
    counts = [changed for _, changed in day.progress] + [each.report["identified_bytes"] for each in day.rounds]
    up = _Scale(_mib(max(*counts, MIB)) * 1.08, BOTTOM, TOP)
    yield _text(LEFT, 28, "A day with a head start: rounds copy what changed while the guest works", "title")
    yield from _legend()
    yield from _axes(across, up)
    yield _line([(across(at), up(_mib(changed))) for at, changed in day.progress], CHANGED)
    for each in day.rounds:
        yield from _round(across, up, each.begin, each.end, each.report)
    yield _line(_remaining(day, across, up), REMAINING)
    begin = across(day.window.begin - day.began)
    yield _rect(begin, TOP, max(1.5, across(window_end) - begin), BOTTOM - TOP, INK, opacity=0.75)
    yield _text(begin - 6, TOP + 12, "the window", anchor="end")


def _round(across: _Scale, up: _Scale, begin: float, end: float, report: dict[str, int]) -> Iterator[str]:
    """As wide as it took."""
    left, width = across(begin), max(3.0, across(end) - across(begin))
    for key, colour, inset in (("identified_bytes", IDENTIFIED, 0.0), ("copied_bytes", COPIED, width * 0.22)):
        top = up(_mib(report[key]))
        yield _rect(left + inset, top, width - 2 * inset, BOTTOM - top, colour)


def _remaining(day: Day, across: _Scale, up: _Scale) -> list[tuple[float, float]]:
    """Identified and not yet copied: rises with what a round finds, falls with what it copies."""
    points, before = [(across(0), up(0))], 0.0
    for each in day.rounds:
        after = _mib(each.report["remaining_bytes"])
        points.append((across(each.begin), up(before)))
        points.append((across(each.begin), up(after + _mib(each.report["copied_bytes"]))))
        points.append((across(each.end), up(after)))
        before = after
    return [*points, (across(day.window.begin - day.began), up(before))]


def _legend() -> Iterator[str]:
    entries = (
        (CHANGED, "changed so far"),
        (IDENTIFIED, "identified by the round"),
        (COPIED, "copied by the round"),
        (REMAINING, "identified, still to copy"),
    )
    at = float(LEFT)
    for colour, label in entries:
        yield _rect(at, 45, 12, 12, colour)
        yield _text(at + 18, 56, label, "faint")
        at += 40 + 7.2 * len(label)


def _axes(across: _Scale, up: _Scale) -> Iterator[str]:
    for value in up.ticks(5):
        yield _line([(LEFT, up(value)), (RIGHT, up(value))], GRID, 1)
        yield _text(LEFT - 8, up(value) + 4, f"{value:g}", "faint", "end")
    yield _text(LEFT - 8, TOP - 6, "MiB", "faint", "end")
    for value in across.ticks(10):
        yield _text(across(value), BOTTOM + 20, f"{value:g}", "faint", "middle")
    yield _text(RIGHT, BOTTOM + 38, "seconds of the day", "faint", "end")


def _windows(head_start: Day, plain: Day) -> Iterator[str]:
    yield _text(LEFT, WINDOWS_TOP - 22, "The backup window, after the same changes", "title")
    across = _Scale(max(day.backup["window_seconds"] for day in (head_start, plain)) * 1.45, BARS_LEFT, RIGHT)
    for number, (label, day, colour) in enumerate((("plain", plain, CHANGED), ("head start", head_start, COPIED))):
        top = WINDOWS_TOP + number * BAR_STEP
        seconds = day.backup["window_seconds"]
        end = across(seconds)
        yield _text(BARS_LEFT - 12, top + 18, label, anchor="end")
        yield _rect(BARS_LEFT, top, max(1.5, end - BARS_LEFT), BAR, colour)
        yield _text(end + 8, top + 18, f"{seconds:.2f} s, {_mib(day.sum('residue_bytes')):.0f} MiB read")
    axis = WINDOWS_TOP + 2 * BAR_STEP
    for value in across.ticks(8):
        yield _text(across(value), axis + 14, f"{value:g}", "faint", "middle")
    yield _text(RIGHT, axis + 32, "seconds from the freeze until the point in time is let go", "faint", "end")


def _mib(count: int) -> float:
    return count / MIB


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}" fill-opacity="{opacity}"/>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: float = 2) -> str:
    listed = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{listed}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
