r"""A picture of what has been with one VM: what was to be copied, how fast it was, its load, its backups.

::

    title, and what it came to
    to copy         ~~~~|~~~~|~~~~      the area that remains, what each round found
    rate            ____-----____
    load            --/\--/\------      bands: the governor's states
    backups         |         |         windows
    12:00      18:00      00:00         time of the zone

Values in, SVG out. Where nothing was measured, nothing is drawn but a grey ground.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from headstart import units
from headstart.host import account, columns, panels, svg
from headstart.host.account import Account
from headstart.host.axes import Times
from headstart.host.columns import Column
from headstart.host.panels import BLANK, FAILED, FAINT, GRID, INK, LETTER, PALE, SWATCH, Panel
from headstart.state.series import MINUTE, Minute
from headstart.state.values import Run

#: What every picture begins with: such a file may be replaced by a newer one.
HEAD = "<!-- Drawn by headstart history -->\n"

WIDTH, LEFT, RIGHT = 1040.0, 84.0, 972.0
#: Where the first panel has its legend, how far that is above the panel, and the next one below it.
_TOP, _ABOVE, _BELOW = 84.0, 12.0, 34.0
_EMPTY_HEIGHT = 120.0
_GAP = "nothing was measured"
_STYLE = f"""\
text {{ font: 13px system-ui, "DejaVu Sans", sans-serif; fill: {INK} }}
.title {{ font-size: 17px; font-weight: 600 }}
.panel {{ font-weight: 600 }}
.faint, .date, .label, .gap {{ font-size: 12px }}
.faint, .gap {{ fill: {FAINT} }}
.label, .gap {{ paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round }}
.gap {{ stroke: {BLANK} }}
"""


@dataclass(frozen=True, slots=True)
class History:
    """``runs`` and ``minutes`` of a VM from ``since`` to the later ``until``, seconds since 1970, in any order.
    ``zone`` of what is written at the axis; None: the system's. ``note``: said beside the title."""

    vm: str
    since: float
    until: float
    minutes: Sequence[Minute]
    runs: Sequence[Run]
    zone: tzinfo | None = None
    note: str = ""


def draw(history: History) -> str:
    """An SVG document, which begins with ``HEAD``."""
    until = max(history.until, history.since + MINUTE)
    across = Times(history.since, until, LEFT, RIGHT, history.zone)
    found = columns.stretches(history.minutes, history.since, until)
    accounts = [account.of(run) for run in history.runs]
    accounts = [each for each in accounts if _within(each, across)]
    title = f"{history.vm}: {_span(across)}"
    parts = [svg.text(LEFT, 30, title, "title"), svg.text(LEFT, 52, _summary(accounts), "faint")]
    if history.note:
        parts.append(svg.text(RIGHT, 52, history.note, "faint", "end"))
    if found or accounts:
        bottom, drawn = _panels(across, found, accounts)
    else:
        bottom, drawn = _nothing(across)
    height = bottom + 56
    return svg.document(WIDTH, height, _STYLE, HEAD, title, [*parts, *drawn])


def _within(each: Account, across: Times) -> bool:
    ended = each.begun if each.ended is None else each.ended
    return each.begun < across.until and max(ended, each.moment) >= across.since


def _span(across: Times) -> str:
    form = "%Y-%m-%d %H:%M"
    zone = across.local(across.until).tzname() or ""
    return f"{across.clock(across.since, form)} to {across.clock(across.until, form)} {zone}".rstrip()


def _panels(across: Times, found: list[list[Column]], accounts: Sequence[Account]) -> tuple[float, list[str]]:
    """The end of the last one, and all of them."""
    rounds = [each for each in accounts if each.verb == "precopy"]
    backups = [each for each in accounts if each.verb == "backup"]
    measured = [panels.of_bytes(found, rounds), panels.of_rate(found), panels.of_load(found, backups)]
    parts: list[str] = []
    at = _TOP
    for panel in (*measured, panels.of_windows(backups)):
        parts += _heading(panel, at)
        top, bottom = at + _ABOVE, at + _ABOVE + panel.height
        parts += _ground(across, top, bottom)
        spans = columns.gaps(found, across.since, across.until) if panel in measured else []
        parts += [_gap(across, span, top, bottom) for span in spans]
        parts += [_line_of(across, each, top, bottom) for each in backups]
        parts += panel.draws(across, top, bottom)
        parts += [_said(across, span, (top + bottom) / 2) for span in spans if _has_room(across, span)]
        at = bottom + _BELOW
    parts += _times(across, bottom)
    return bottom, parts


def _heading(panel: Panel, y: float) -> Iterator[str]:
    yield svg.text(LEFT, y, panel.title, "panel")
    x = LEFT + 22 + LETTER * 1.25 * len(panel.title)
    for colour, meaning in panel.legend:
        yield svg.rect(x, y - SWATCH + 1, SWATCH, SWATCH, colour)
        yield svg.text(x + SWATCH + 6, y, meaning, "faint")
        x += SWATCH + 24 + LETTER * len(meaning)


def _ground(across: Times, top: float, bottom: float) -> Iterator[str]:
    for moment in across.ticks():
        x = across(moment.timestamp())
        yield svg.line([(x, top), (x, bottom)], GRID)
    yield svg.line([(across.left, bottom), (across.right, bottom)], FAINT)


def _gap(across: Times, span: tuple[float, float], top: float, bottom: float) -> str:
    left = across(span[0])
    return svg.rect(left, top, across(span[1]) - left, bottom - top, BLANK, title=_GAP)


def _has_room(across: Times, span: tuple[float, float]) -> bool:
    return across(span[1]) - across(span[0]) > LETTER * len(_GAP) + 16


def _said(across: Times, span: tuple[float, float], middle: float) -> str:
    return svg.text(across((span[0] + span[1]) / 2), middle + 4, _GAP, "gap", "middle")


def _line_of(across: Times, each: Account, top: float, bottom: float) -> str:
    """Where a backup was, in every panel."""
    x = across(each.moment)
    return svg.line([(x, top), (x, bottom)], PALE if each.error is None else FAILED, 1, "2 4")


def _times(across: Times, bottom: float) -> Iterator[str]:
    for moment in across.ticks():
        x = across(moment.timestamp())
        yield svg.text(x, bottom + 18, f"{moment:%H:%M}", "faint", "middle")
        if (moment.hour, moment.minute) == (0, 0):
            yield svg.text(x, bottom + 34, f"{moment:%Y-%m-%d}", "date", "middle")


def _nothing(across: Times) -> tuple[float, list[str]]:
    top, bottom = _TOP, _TOP + _EMPTY_HEIGHT
    said = "Nothing is known of this time: no figures, no runs. The daemon ('headstart run') measures."
    return bottom, [
        svg.rect(LEFT, top, RIGHT - LEFT, bottom - top, BLANK),
        svg.text((LEFT + RIGHT) / 2, (top + bottom) / 2 + 4, said, "", "middle"),
        *_times(across, bottom),
    ]


def _summary(accounts: Sequence[Account]) -> str:
    rounds = [each for each in accounts if each.verb == "precopy" and each.error is None]
    backups = [each for each in accounts if each.verb == "backup" and each.succeeded]
    failed = sum(each.error is not None for each in accounts)
    copied = units.format_bytes(round(sum(each.copied or 0.0 for each in rounds)))
    told = [f"{_count(len(rounds), 'round')} copied {copied} ahead" if rounds else "no rounds"]
    told.append(_count(len(backups), "backup") if backups else "no backup")
    windows = [each.window for each in backups if each.window is not None]
    if windows:
        told[-1] += f", {_windows(min(windows), max(windows))}"
    return "; ".join([*told, *([f"{_count(failed, 'run')} failed"] if failed else [])])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _windows(shortest: float, longest: float) -> str:
    least, most = units.format_seconds(shortest), units.format_seconds(longest)
    return f"window {least}" if least == most else f"windows from {least} to {most}"
