"""The backup window with and without a head start, on the demo's changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import day, figure, scene
from bench.day import Day
from bench.figure import Figure
from bench.scene import VM_NAME

PLAIN = "backup --plain"


def run(folder: Path, runs: int, say: Callable[[str], None]) -> list[Figure]:
    """``folder`` is made."""
    ours: list[Day] = []
    peer: list[Day] = []
    with scene.running(folder) as stage:
        stage.headstart("backup", VM_NAME)
        for number in range(runs):
            say(f"a day with a head start and a plain one: run {number + 1} of {runs}")
            ours.append(day.with_head_start(stage, 2 * number + 1, _silent))
            peer.append(day.plain(stage, 2 * number + 2, _silent))
    return [
        _compared("backup window", ours, peer, lambda each: each.backup["window_seconds"], "s"),
        _compared("read in the window", ours, peer, lambda each: each.sum("residue_bytes"), "bytes"),
        _compared("fsync of the guest in the window, p99", ours, peer, lambda each: each.in_window.worst, "ms"),
    ]


def _silent(text: str) -> None:
    """Rounds are not told."""


def _compared(name: str, ours: list[Day], peer: list[Day], value: Callable[[Day], float], unit: str) -> Figure:
    return figure.of(name, [value(each) for each in ours], [value(each) for each in peer], PLAIN, unit)
