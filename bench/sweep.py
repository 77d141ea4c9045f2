"""The planner on made-up traces of 32 production VMs: ``python -m bench.sweep`` writes docs/planning-figures.md.

Every VM under every assumption of addresses; both simple ways beside ours, and the one that knows the future.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import front, planning, traces
from bench.traces import Assumption
from headstart.simulation import replay
from headstart.simulation.policies import HeadStart, Immediate, OnePass
from headstart.simulation.world import Totals, World

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "build" / "bench" / "planning.json"
PAGE = ROOT / "docs" / "planning-figures.md"
CHART = ROOT / "docs" / "planning.svg"

HOT = (0.2, 0.45, 0.7)
RUN = (16 * 1024, 64 * 1024, 256 * 1024)
MIDDLE = Assumption()
#: The front of each way: one pass so long before, a round so often, ours with so much allowed to be wasted.
BEFORE = (7200.0, 3600.0, 1800.0, 900.0, 300.0)
EVERY = (300.0, 900.0, 3600.0, 14400.0)
WASTE = (0.01, 0.03, 0.12, 0.3)
#: The simple way that stands in the tables.
PASS_BEFORE = 1800.0


@dataclass(frozen=True, slots=True)
class Share:
    """Of what changed: the residue, what was copied in all. Of what was copied ahead: what was so under load."""

    residue: float
    copied: float
    under_load: float
    longest_window: float


@dataclass(frozen=True, slots=True)
class Case:
    """One VM under one assumption. ``near``: ours is within 1.3 times the oracle's residue and 64 MiB a backup."""

    vm: str
    assumed: Assumption
    changed: int
    backups: int
    ours: Share
    oracle: Share
    immediate: Share
    one_pass: Share
    near: bool
    ratio: float
    #: Of forecasts: bytes low, likely, high, and what came about.
    forecasts: list[tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Point:
    """One way, one setting, one VM: for the front."""

    way: str
    setting: float
    vm: str
    share: Share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--middle", action="store_true", help="only the middle of the sweep")
    given = parser.parse_args()
    began = time.monotonic()
    grid = [MIDDLE] if given.middle else [Assumption(*each) for each in itertools.product(HOT, RUN, traces.DISTANCES)]
    names = list(traces.vms())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        cases = list(pool.map(case, *zip(*itertools.product(names, grid), strict=True), chunksize=4))
        points = [point for found in pool.map(points_of, names) for point in found]
    took = time.monotonic() - began
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        json.dumps({"cases": [asdict(each) for each in cases], "points": [asdict(each) for each in points]})
    )
    PAGE.write_text(planning.page(cases, MIDDLE))
    CHART.write_text(front.draw(points))
    print(planning.page(cases, MIDDLE))
    print(f"{len(cases)} cases, {took:.0f} s")


def case(vm: str, assumed: Assumption) -> Case:
    world = traces.world(traces.vms()[vm], assumed, vm)
    found = replay.compare(world)
    ours, oracle = found.totals["headstart"], found.totals["oracle"]
    backups = len(ours.residues)
    allowed = 1.3 * oracle.residue + backups * planning.SPARE
    one_pass = replay.replay(world, OnePass(PASS_BEFORE), replay.full(world))
    return Case(
        vm=vm,
        assumed=assumed,
        changed=ours.changed,
        backups=backups,
        ours=share(world, ours),
        oracle=share(world, oracle),
        immediate=share(world, found.totals["immediate"]),
        one_pass=share(world, one_pass),
        near=ours.residue <= allowed,
        ratio=ours.residue / allowed,
        forecasts=[
            (each.forecast.residue.low, each.forecast.residue.likely, each.forecast.residue.high, float(each.residue))
            for each in found.headstart.forecasts
        ],
    )


def points_of(vm: str) -> list[Point]:
    """In the middle of the sweep."""
    world = traces.world(traces.vms()[vm], MIDDLE, vm)
    ways = [("one pass", each, OnePass(each), replay.full(world)) for each in BEFORE]
    found = [(way, setting, replay.replay(world, policy, copier)) for way, setting, policy, copier in ways]
    found += [("rounds", each, replay.replay(world, Immediate(each), replay.full(world))) for each in EVERY]
    # The same at times when the governor lets them.
    found += [
        ("one pass, load minded", each, replay.replay(world, OnePass(each), replay.governed(world))) for each in BEFORE
    ]
    found += [
        ("rounds, load minded", each, replay.replay(world, Immediate(each), replay.governed(world))) for each in EVERY
    ]
    found += [
        ("ours", each, replay.replay(world, HeadStart(world, waste=each), replay.governed(world))) for each in WASTE
    ]
    # Nobody minds the load: like the simple ways.
    found += [
        ("ours, at any load", each, replay.replay(world, HeadStart(calm(world), waste=each), replay.full(world)))
        for each in WASTE
    ]
    return [Point(way, setting, vm, share(world, totals)) for way, setting, totals in found]


def calm(world: World) -> World:
    """With nobody to be minded."""
    return replace(world, load=replace(world.load, moments=[0.0], values=[0.0]))


def share(world: World, totals: Totals) -> Share:
    changed = max(1, totals.changed)
    under_load = totals.under_load / max(1, totals.copied)
    longest = max(world.windows(totals))
    return Share(totals.residue / changed, (totals.copied + totals.residue) / changed, under_load, longest)


if __name__ == "__main__":
    main()
