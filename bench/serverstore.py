"""How fast objects go through a server of ours: ``python -m bench.serverstore``.

Beside it the directory in which it keeps them. A server process and its client on one machine, over TLS on loopback:
what comes out is what HTTPS, the digests, the database and Python cost, and no network. Objects are of the size of a
pack and do not compress; reading is from the page cache in both. Both take turns, the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from headstart.repository import layout
from headstart.store import contract
from headstart.store.local import LocalStore
from headstart.store.server import ServerStore
from tests.kit.server import Server

SIZE = layout.PACK_SIZE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=32, help="of 16 MiB each, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 2, 4], help="objects under way at a time")
    parser.add_argument("--folder", type=Path, help="on the disk that is meant; else where temporary files are")
    given = parser.parse_args()
    print("| objects at a time | | put | get |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=given.folder) as name, Server(Path(name) / "server") as server:
        tenant = server.tenant("bench")
        tenant.repository()
        stores: dict[str, contract.Store] = {
            "directory": LocalStore(Path(name) / "directory"),
            "https://": ServerStore(tenant.program("admin").client, "main"),
        }
        for window in given.windows:
            compare(stores, given.objects, given.rounds, window)


def compare(stores: dict[str, contract.Store], objects: int, rounds: int, window: int) -> None:
    rates: dict[str, list[tuple[float, float]]] = {what: [] for what in stores}
    names = (f"packs/{secrets.token_hex(16)}" for _ in count())
    for _ in range(rounds):
        for what, store in stores.items():
            rates[what].append(measure(store, objects, window, names))
    middle = {what: [statistics.median(one) for one in zip(*found, strict=True)] for what, found in rates.items()}
    for what, (put, get) in middle.items():
        print(f"| {window} | {what} | {_told(put)} | {_told(get)} |", flush=True)
    shares = [there / here for there, here in zip(middle["https://"], middle["directory"], strict=True)]
    print(f"| {window} | share | {shares[0]:.0%} | {shares[1]:.0%} |", flush=True)


def measure(store: contract.Store, objects: int, window: int, names: Iterator[str]) -> tuple[float, float]:
    """Bytes per second of creating and of reading. What was stored is removed."""
    data = layout.header(layout.Kind.PACK) + secrets.token_bytes(SIZE - layout.HEADER_LENGTH)
    chosen = [next(names) for _ in range(objects)]
    store.clock()  # a connection, and folders, are made once
    put = _rate(lambda name: store.create(name, data), chosen, window)
    get = _rate(lambda name: _check(store.read(name), data), chosen, window)
    for name in chosen:
        store.delete(name)
    return put, get


def _check(found: bytes, expected: bytes) -> None:
    assert found == expected


def _rate(work: Callable[[str], None], names: Sequence[str], window: int) -> float:
    begun = time.monotonic()
    with ThreadPoolExecutor(window) as threads:
        list(threads.map(work, names))
    return len(names) * SIZE / (time.monotonic() - begun)


def _told(rate: float) -> str:
    return f"{rate / 1e6:.0f} MB/s"


if __name__ == "__main__":
    main()
