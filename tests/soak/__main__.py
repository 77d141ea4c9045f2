"""``python -m tests.soak --seed 1 --cycles 10000``: the last line reads ``N cycles, F faults, W wrong bytes``.

Simulated cycles first, then one on a real VM for each hundred of them. A life that fails says its own seed, which shows
it again at once.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.kit.compare import WrongBytes
from tests.soak import plants
from tests.soak.life import CYCLES, Lived, live
from tests.soak.machine import Endured, Machine

#: Simulated cycles for one on a real VM.
REAL = 100


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
    failed = _tell(found, chosen.plant)
    real = Endured()
    if not chosen.plant and not failed:
        real, failed = _endure(chosen.seed, chosen.cycles // REAL)
    faults = sum(each.faults.total() for each in found) + real.faults.total()
    cycles, wrong = sum(each.cycles for each in found) + real.cycles, sum(each.wrong for each in found) + real.wrong
    print(f"{cycles} cycles, {faults} faults, {wrong} wrong bytes")
    return 1 if failed else 0


def soak(seed: int, cycles: int, plant: str = "", *, workers: int | None = None) -> list[Lived]:
    """Lives with the seeds from ``seed`` on, until there are so many cycles."""
    whole, rest = divmod(cycles, CYCLES)
    lengths = [CYCLES] * whole + [rest] * bool(rest)
    with concurrent.futures.ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        lived = functools.partial(live, plant=plant)
        return list(pool.map(lived, range(seed, seed + len(lengths)), lengths, chunksize=4))


def _tell(found: Sequence[Lived], plant: str) -> bool:
    """Whether a life failed."""
    failed = [each for each in found if each.failure]
    for each in failed[:10]:
        again = f"make soak SEED={each.seed} CYCLES={CYCLES}" + (f" PLANT={plant}" if plant else "")
        print(f"seed {each.seed}: {each.failure}\n  again: {again}")
    if len(failed) > 10:
        print(f"and {len(failed) - 10} more")
    if plant:
        print(f"the planted bug {plant} was {'caught' if failed else 'NOT CAUGHT'}")
    _tell_faults(sum((each.faults for each in found), Counter()))
    return bool(failed)


def _tell_faults(faults: Counter[str]) -> None:
    for kind, count in sorted(faults.items()):
        print(f"{count:8} {kind}")


def _endure(seed: int, cycles: int) -> tuple[Endured, bool]:
    """Cycles on a real VM, and whether one failed."""
    if not cycles:
        return Endured(), False
    with tempfile.TemporaryDirectory(prefix="headstart-soak-") as folder, Machine(Path(folder), seed) as machine:
        found = machine.endured
        try:
            for number in range(1, cycles + 1):
                print(f"real VM, cycle {number} of {cycles}: {machine.cycle()}", flush=True)
        except AssertionError as error:
            print(f"real VM, seed {seed}, cycle {found.cycles + 1}: {error}")
            found.wrong = error.count if isinstance(error, WrongBytes) else 0
            return found, True
    _tell_faults(found.faults)
    print(
        f"longest stall of a guest's write {found.stall * 1000:.0f} ms, pause of ours {found.pause * 1000:.1f} ms,"
        f" freeze {found.freeze * 1000:.0f} ms"
    )
    return found, False


if __name__ == "__main__":
    sys.exit(main())
