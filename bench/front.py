"""The chart of the planner: residue against bytes copied, for each way over its settings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from bench.chart import COPIED, FAINT, GRID, REMAINING, STYLE

if TYPE_CHECKING:
    from bench.sweep import Point

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 84, 700, 64, 452
COLOURS = {
    "ours": COPIED,
    "one pass, load minded": REMAINING,
    "rounds, load minded": FAINT,
    "ours, at any load": COPIED,
    "one pass": REMAINING,
    "rounds": FAINT,
}
LABELS = {
    "ours": "headstart, by waste allowed",
    "one pass, load minded": "one pass so long before",
    "rounds, load minded": "rounds so often",
    "ours, at any load": "headstart, at any load",
    "one pass": "one pass, at any load",
    "rounds": "rounds, at any load",
}
#: Drawn with dashes.
AT_ANY_LOAD = ("ours, at any load", "one pass", "rounds")
#: Both axes are logarithmic: of the copies what goes beyond the changes.
EXTRA = (0.005, 20.0)
RESIDUE = (0.0005, 0.3)


def draw(points: Sequence[Point]) -> str:
    """An SVG document. Each point is the median over the VMs."""
    body = "\n".join([*_axes(), *(part for way in COLOURS for part in _way(way, points)), *_legend()])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        f'<style>\n{STYLE}</style>\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _way(way: str, points: Sequence[Point]) -> Iterator[str]:
    settings = dict.fromkeys(each.setting for each in points if each.way == way)
    at = []
    for setting in settings:
        here = [each.share for each in points if each.way == way and each.setting == setting]
        x = _across(statistics.median(each.copied for each in here) - 1)
        y = _up(statistics.median(each.residue for each in here))
        at.append((x, y, setting))
    drawn = " ".join(f"{x},{y}" for x, y, _ in at)
    dashes = ' stroke-dasharray="5 4"' if way in AT_ANY_LOAD else ""
    yield f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[way]}" stroke-width="2"{dashes}/>'
    for x, y, setting in at:
        yield _dot(x, y, way)
        told = f"{setting:.0%}" if way.startswith("ours") else f"{setting / 60:.0f} min"
        yield _text(x + 7, y - 6, told, "faint")


def _dot(x: float, y: float, way: str) -> str:
    inside = "#ffffff" if way in AT_ANY_LOAD else COLOURS[way]
    return f'<circle cx="{x}" cy="{y}" r="4" fill="{inside}" stroke="{COLOURS[way]}" stroke-width="1.5"/>'


def _axes() -> Iterator[str]:
    yield _text(LEFT, 30, "Residue against copies, median of 32 VMs", "title")
    for value in (0.01, 0.03, 0.1, 0.3, 1, 3, 10):
        x = _across(value)
        yield _line(x, TOP, x, BOTTOM)
        yield _text(x, BOTTOM + 20, f"{value:.0%}", "faint", "middle")
    yield _text(RIGHT, BOTTOM + 42, "copied in all beyond what changed, of what changed", "faint", "end")
    for value in (0.001, 0.003, 0.01, 0.03, 0.1):
        y = _up(value)
        yield _line(LEFT, y, RIGHT, y)
        yield _text(LEFT - 8, y + 4, f"{value:.1%}", "faint", "end")
    yield _text(LEFT - 8, TOP - 10, "residue", "faint", "end")


def _legend() -> Iterator[str]:
    for number, way in enumerate(COLOURS):
        y = TOP + 24 + number * 26
        yield _dot(RIGHT + 18, y - 4, way)
        yield _text(RIGHT + 30, y, LABELS[way])


def _across(value: float) -> float:
    return _log(value, EXTRA, LEFT, RIGHT)


def _up(value: float) -> float:
    return _log(value, RESIDUE, BOTTOM, TOP)


def _log(value: float, ends: tuple[float, float], begin: float, end: float) -> float:
    low, high = (math.log(each) for each in ends)
    share = (math.log(min(max(value, ends[0]), ends[1])) - low) / (high - low)
    return round(begin + share * (end - begin), 1)


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{GRID}"/>'
