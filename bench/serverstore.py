"""How fast objects go through a server of ours: ``python -m bench.serverstore``.

Beside it the directory in which it keeps them. A server process and its client on one machine, over TLS on loopback:
what comes out is what HTTPS, the digests, the database and Python cost, and no network. Objects are of the size of a
pack and do not compress; reading is from the page cache in both. Both take turns, the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import os
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


Timed = tuple[float, float, float]
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=32, help="of 16 MiB each, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 4], help="objects under way at a time")
    parser.add_argument("--folder", type=Path, help="on the disk that is meant; else where temporary files are")
    given = parser.parse_args()
    print("| at a time | | | rate | client, s/GB | server, s/GB |")
    print("|---|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=given.folder) as name, Server(Path(name) / "server", anew=True) as server:
        tenant = server.tenant("bench")
        tenant.repository()
        assert server.process is not None
        stores: dict[str, contract.Store] = {
            "directory": LocalStore(Path(name) / "directory"),
            "https://": ServerStore(tenant.program("admin").client, "main"),
        }
        for window in given.windows:
            compare(stores, given.objects, given.rounds, window, server.process.pid)


def compare(stores: dict[str, contract.Store], objects: int, rounds: int, window: int, server: int) -> None:
    found: dict[tuple[str, str], list[Timed]] = {}
    names = (f"packs/{secrets.token_hex(16)}" for _ in count())
    for _ in range(rounds):
        for what, store in stores.items():
            for verb, timed in zip(("put", "get"), measure(store, objects, window, names, server), strict=True):
                found.setdefault((verb, what), []).append(timed)
    for (verb, what), each in sorted(found.items(), reverse=True):
        rate, client, process = (statistics.median(one) for one in zip(*each, strict=True))
        its = f"{process:.1f}" if what != "directory" else ""
        print(f"| {window} | {verb} | {what} | {rate / 1e6:.0f} MB/s | {client:.1f} | {its} |", flush=True)


def measure(store: contract.Store, objects: int, window: int, names: Iterator[str], server: int) -> tuple[Timed, Timed]:
    """Of creating and of reading. What was stored is removed."""
    data = layout.header(layout.Kind.PACK) + secrets.token_bytes(SIZE - layout.HEADER_LENGTH)
    chosen = [next(names) for _ in range(objects)]
    store.clock()  # a connection, and folders, are made once
    put = _timed(lambda name: store.create(name, data), chosen, window, server)
    get = _timed(lambda name: _check(store.read(name), data), chosen, window, server)
    for name in chosen:
        store.delete(name)
    return put, get


def _check(found: bytes, expected: bytes) -> None:
    assert found == expected


def _timed(work: Callable[[str], None], names: Sequence[str], window: int, server: int) -> Timed:
    """Bytes a second; seconds of a processor for a GB, of the client and of the server."""
    begun, mine, its = time.monotonic(), time.process_time(), _processor(server)
    with ThreadPoolExecutor(window) as threads:
        list(threads.map(work, names))
    size = len(names) * SIZE
    seconds, mine, its = time.monotonic() - begun, time.process_time() - mine, _processor(server) - its
    return size / seconds, mine / size * 1e9, its / size * 1e9


def _processor(process: int) -> float:
    """Seconds of a processor that a process has used: proc(5), fields 14 and 15."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


if __name__ == "__main__":
    main()
