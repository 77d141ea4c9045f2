"""What a planner has learned, kept over restarts."""

from __future__ import annotations

from collections.abc import Mapping

from headstart.backup import heat, learning
from headstart.backup.planner import Known
from headstart.state.series import Series


def load(series: Series, vm: str) -> dict[str, Known]:
    """By disk. What is of another version, or damaged, is learned anew."""
    found = {}
    for disk, (heated, learned) in series.heats(vm).items():
        try:
            found[disk] = Known(heat.decode(heated), learning.decode(learned))
        except ValueError:
            continue
    return found


def keep(series: Series, vm: str, disks: Mapping[str, Known]) -> None:
    series.keep_heats(
        vm, {name: (heat.encode(known.heat), learning.encode(known.learned)) for name, known in disks.items()}
    )
