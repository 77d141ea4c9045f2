"""``python -m tests.soak --seed 1 --cycles 10000``: the last line reads ``N cycles, F faults, W wrong bytes``.

A life that fails says its own seed, which shows it again at once.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import os
import sys
from collections import Counter
from collections.abc import Sequence

from tests.soak import plants
from tests.soak.life import CYCLES, Lived, live


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--plant", default="", help=f"one of {', '.join(plants.PLANTS)}")
    chosen = parser.parse_args(arguments)
    if chosen.plant and chosen.plant not in plants.PLANTS:
        parser.error(f"there is no bug '{chosen.plant}' to plant: choose from {', '.join(plants.PLANTS)}")
    if chosen.cycles < 1:
        parser.error("at least one cycle")
    found = soak(chosen.seed, chosen.cycles, chosen.plant)
    return _tell(found, chosen.plant)


def soak(seed: int, cycles: int, plant: str = "", *, workers: int | None = None) -> list[Lived]:
    """Lives with the seeds from ``seed`` on, until there are so many cycles."""
    whole, rest = divmod(cycles, CYCLES)
    lengths = [CYCLES] * whole + [rest] * bool(rest)
    with concurrent.futures.ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        lived = functools.partial(live, plant=plant)
        return list(pool.map(lived, range(seed, seed + len(lengths)), lengths, chunksize=4))


def _tell(found: Sequence[Lived], plant: str) -> int:
    failed = [each for each in found if each.failure]
    for each in failed[:10]:
        again = f"make soak SEED={each.seed} CYCLES={CYCLES}" + (f" PLANT={plant}" if plant else "")
        print(f"seed {each.seed}: {each.failure}\n  again: {again}")
    if len(failed) > 10:
        print(f"and {len(failed) - 10} more")
    if plant:
        print(f"the planted bug {plant} was {'caught' if failed else 'NOT CAUGHT'}")
    faults: Counter[str] = sum((each.faults for each in found), Counter())
    for kind, count in sorted(faults.items()):
        print(f"{count:8} {kind}")
    cycles, wrong = sum(each.cycles for each in found), sum(each.wrong for each in found)
    print(f"{cycles} cycles, {faults.total()} faults, {wrong} wrong bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
