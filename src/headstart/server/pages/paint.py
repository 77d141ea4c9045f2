"""Pictures for a dark ground: the same drawing, with its colours exchanged."""

from __future__ import annotations

import re

from headstart.host import panels

#: By the colour on a white ground. Those that are not named are bright enough for both.
_DARK = {
    "#ffffff": "#161c24",
    panels.INK: "#e4e9f0",
    panels.FAINT: "#9aa7b6",
    panels.PALE: "#5b6979",
    panels.GRID: "#2a3441",
    panels.BLANK: "#1e2630",
    panels.DEFERRED: "#6b4338",
    panels.DIRTY: "#b9c7d8",
    panels.COPIED: "#6f9dff",
    panels.LATENCY: "#b492e0",
    panels.FAILED: "#ff6b7d",
    "#4a5561": "#7d8996",
    "#8b1e2d": "#c9505f",
}
#: Where a colour can stand, so that text which looks like one stays.
_COLOUR = re.compile(f'(?:(?<==")|(?<=: )|(?<=fill:))(?:{"|".join(_DARK)})')


def dark(svg: str) -> str:
    return _COLOUR.sub(lambda found: _DARK[found[0]], svg)
