"""Elements of an SVG picture, as text. Whatever text they are given, the XML is valid."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from headstart import plain

Point: TypeAlias = tuple[float, float]

#: Tooltips hold messages from anywhere.
LONGEST_TEXT = 300


def escape(told: str) -> str:
    """Some characters XML 1.0 cannot hold, not even escaped (section 2.2); none of those is printable."""
    return html.escape(plain.joined(told, LONGEST_TEXT))


def _at(place: float) -> str:
    """A tenth of a pixel is enough."""
    return f"{round(place, 1):g}"


def document(width: float, height: float, style: str, head: str, label: str, parts: Iterable[str]) -> str:
    """``head``: a comment that stands before everything else; ``label`` is read out to who does not see it."""
    body = "\n".join(parts)
    return (
        f'{head}<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(label)}">\n<style>\n{style}</style>\n'
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def text(x: float, y: float, told: str, style: str = "", anchor: str = "start", colour: str = "") -> str:
    named = f' class="{style}"' if style else ""
    # A style wins over the style sheet, an attribute does not.
    coloured = f' style="fill:{colour}"' if colour else ""
    return f'<text x="{_at(x)}" y="{_at(y)}" text-anchor="{anchor}"{named}{coloured}>{escape(told)}</text>'


def rect(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1, title: str = "") -> str:
    size = f'width="{_at(max(0.0, width))}" height="{_at(max(0.0, height))}"'
    faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    head = f'<rect x="{_at(x)}" y="{_at(y)}" {size} fill="{colour}"{faint}'
    return f"{head}><title>{escape(title)}</title></rect>" if title else f"{head}/>"


def group(parts: Iterable[str], title: str) -> str:
    return f"<g><title>{escape(title)}</title>{''.join(parts)}</g>"


def line(points: Sequence[Point], colour: str, width: float = 1, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    listed = " ".join(f"{_at(x)},{_at(y)}" for x, y in points)
    return f'<polyline points="{listed}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def area(points: Sequence[Point], base: float, colour: str, opacity: float = 1) -> str:
    """From a line down to ``base``."""
    listed = [(points[0][0], base), *points, (points[-1][0], base)]
    told = " ".join(f"{_at(x)},{_at(y)}" for x, y in listed)
    return f'<polygon points="{told}" fill="{colour}" fill-opacity="{opacity:g}"/>'


def cross(x: float, y: float, radius: float, colour: str, title: str = "") -> str:
    down, up = f"M{_at(x - radius)},{_at(y - radius)}l{2 * radius:g},{2 * radius:g}", f"m0,{-2 * radius:g}"
    path = f'<path d="{down}{up}l{-2 * radius:g},{2 * radius:g}" stroke="{colour}" stroke-width="2.2" fill="none"'
    return f"{path}><title>{escape(title)}</title></path>" if title else f"{path}/>"


def ring(x: float, y: float, radius: float, colour: str, title: str) -> str:
    place = f'<circle cx="{_at(x)}" cy="{_at(y)}" r="{radius:g}" fill="#ffffff" stroke="{colour}" stroke-width="1.8"'
    return f"{place}><title>{escape(title)}</title></circle>"
