"""docs/planning-figures.md, written by ``make bench-plan``: targets, the spread over assumptions, the worst cases."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headstart.units import MIB

if TYPE_CHECKING:
    from bench.sweep import Case
    from bench.traces import Assumption

#: Bytes of residue a backup that are nobody's concern.
SPARE = 64 * MIB

_HEAD = """\
# Figures of the planner

Written by `make bench-plan`, which explains itself in [planning.md](planning.md): traces are made up from half-hour
figures of 32 production VMs under assumptions on addresses. They are not recorded traces. A week, a backup a day,
100 MiB/s.

"""


def page(cases: Sequence[Case], middle: Assumption) -> str:
    centre = [each for each in cases if each.assumed == middle]
    parts = [
        _HEAD,
        "## Targets\n\nMedian over the VMs, in the middle of the sweep; and over all cases of the sweep.\n\n",
        _targets(cases, centre),
        "\n## Beside the simple ways\n\nMedian (and worst) over the VMs, in the middle of the sweep.\n\n",
        _ways(centre),
        "\n## Over the sweep\n\nMedian over the VMs (and the worst VM), ours.\n\n",
        _grid(cases),
        "\n## Every VM, in the middle of the sweep\n\nWorst residue first.\n\n",
        _vms(centre),
        "\n## Forecasts\n\n",
        _forecasts(cases),
    ]
    return "".join(parts)


def _targets(cases: Sequence[Case], centre: Sequence[Case]) -> str:
    goals: list[tuple[str, float, Callable[[Case], float], str]] = [
        ("residue, of the plain incremental", 0.05, lambda each: each.ours.residue, ".2%"),
        ("residue, of 1.3 times the oracle's and 64 MiB a backup", 1.0, lambda each: each.ratio, ".2f"),
        ("copied in all, of the plain incremental", 1.2, lambda each: each.ours.copied, ".3f"),
        ("of the bytes copied ahead: above the 75th percentile of load", 0.1, lambda each: each.ours.under_load, ".1%"),
    ]
    rows = []
    for name, goal, value, form in goals:
        here, everywhere = [value(each) for each in centre], [value(each) for each in cases]
        told = [statistics.median(here), max(here), statistics.median(everywhere), max(everywhere)]
        within = sum(each <= goal for each in everywhere) / len(everywhere)
        rows.append((name, f"<= {goal:{form}}", *(f"{each:{form}}" for each in told), f"{within:.1%}"))
    heads = ("", "target", "median VM", "worst VM", "median of all cases", "worst of all cases", "cases within")
    return _table(heads, rows)


def _ways(centre: Sequence[Case]) -> str:
    rows = []
    for name, shares in (
        ("ours", [each.ours for each in centre]),
        ("oracle: ours, if it knew the future", [each.oracle for each in centre]),
        ("one pass 30 minutes before", [each.one_pass for each in centre]),
        ("rounds every 5 minutes", [each.immediate for each in centre]),
    ):
        cells = [
            _spread([each.residue for each in shares], ".2%"),
            _spread([each.copied for each in shares], ".2f"),
            _spread([each.under_load for each in shares], ".1%"),
            _spread([each.longest_window for each in shares], ".1f"),
        ]
        rows.append((name, *cells))
    return _table(("", "residue", "copied in all", "under load", "longest window, s"), rows)


def _grid(cases: Sequence[Case]) -> str:
    rows = []
    for assumed in dict.fromkeys(each.assumed for each in cases):
        here = [each for each in cases if each.assumed == assumed]
        cells = [
            _spread([each.ours.residue for each in here], ".2%"),
            _spread([each.oracle.residue for each in here], ".2%"),
            _spread([each.ours.copied for each in here], ".2f"),
            _spread([each.ours.under_load for each in here], ".1%"),
            f"{sum(each.near for each in here)} of {len(here)}",
        ]
        rows.append((f"{assumed.hot:.0%}", f"{assumed.run // 1024} KiB", assumed.distance, *cells))
    heads = (
        "to the hot set",
        "in one piece",
        "written again after",
        "residue",
        "oracle's",
        "copied in all",
        "under load",
        "near the oracle",
    )
    return _table(heads, rows)


def _vms(centre: Sequence[Case]) -> str:
    rows = [
        (
            each.vm,
            f"{each.changed / each.backups / MIB / 1024:.1f} GiB",
            f"{each.ours.residue:.2%}",
            f"{each.oracle.residue:.2%}",
            f"{each.ratio:.2f}",
            f"{each.ours.copied:.3f}",
            f"{each.ours.under_load:.1%}",
            f"{each.ours.longest_window:.1f} s",
        )
        for each in sorted(centre, key=lambda each: -each.ours.residue)
    ]
    heads = (
        "VM",
        "changed a day",
        "residue",
        "oracle's",
        "of 1.3 x oracle + 64 MiB",
        "copied in all",
        "under load",
        "longest window",
    )
    return _table(heads, rows)


def _forecasts(cases: Sequence[Case]) -> str:
    found = [each for case in cases for each in case.forecasts]
    if not found:
        return "None were made.\n"
    within = sum(low <= there <= high for low, _, high, there in found) / len(found)
    below = sum(there < low for low, _, _, there in found) / len(found)
    return (
        f"{len(found)} forecasts of the residue, half a day and an hour before each backup: {within:.0%} came about "
        f"within the range, {below:.0%} below it, {1 - within - below:.0%} above.\n"
    )


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({max(values):{form}})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
