"""How much of a slow line uploads and downloads to object storage fill: ``python -m bench.link``.

SeaweedFS behind an emulated line of 100 Mbit/s and 50 ms there and back, objects of the size of a pack, so many at a
time as the writer and the reader of a repository have under way. What HTTP adds counts as lost.
"""

from __future__ import annotations

import argparse
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from headstart import units
from headstart.store import contract, open_store
from tests.kit import weed as weeds
from tests.kit.link import Link
from tests.kit.weed import Weed

MBIT = 1_000_000 / 8
OBJECT = 32 * units.MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=8, help="of 32 MiB each")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--round-trip", type=float, default=0.05, help="seconds")
    given = parser.parse_args()
    print("| objects at a time | put | share of the line | get | share of the line |")
    print("|---|---|---|---|---|")
    with Weed() as weed, Link(weed.url, given.mbit * MBIT, given.round_trip / 2) as link:
        os.environ.update(weeds.environment(link.url))
        bucket = weed.new_bucket()
        for window in given.windows:
            rates = measure(open_store(f"s3://{bucket}/window{window}"), given.objects, window)
            told = [f"{units.format_bytes(round(rate))}/s | {rate / given.mbit / MBIT:.0%}" for rate in rates]
            print(f"| {window} | {' | '.join(told)} |", flush=True)


def measure(store: contract.Store, objects: int, window: int) -> list[float]:
    """Bytes per second of creating and of reading."""
    data = secrets.token_bytes(OBJECT)
    names = [f"packs/{number}" for number in range(objects)]
    store.clock()  # nobody backs up for the first time all the time: what is only once is not measured
    return [
        _rate(lambda name: store.create(name, data), names, window),
        _rate(lambda name: _check(store.read(name), data), names, window),
    ]


def _check(found: bytes, expected: bytes) -> None:
    assert found == expected


def _rate(work: Callable[[str], None], names: Sequence[str], window: int) -> float:
    begun = time.monotonic()
    with ThreadPoolExecutor(window) as threads:
        list(threads.map(work, names))
    return len(names) * OBJECT / (time.monotonic() - begun)


if __name__ == "__main__":
    main()
