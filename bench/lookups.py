"""One process that opens a repository and looks chunks up: ``python -m bench.lookups FOLDER CACHE``; JSON on stdout."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import bulk
from headstart import repository
from headstart.store.local import LocalStore

#: Looked up together, as when a piece of a disk of 1 MiB has been read.
BATCH = 16
COUNT = 200_000


def main() -> None:
    folder, cache = map(Path, sys.argv[1:3])
    with _Anonymous() as memory, repository.open(LocalStore(folder), lambda: bulk.PASSWORD) as repo:
        repo.holdings.use_cache(cache)
        began = time.monotonic()
        with repo.holdings.loaded() as holdings:
            count = len(holdings.table)
        loaded = time.monotonic() - began
        told = {"chunks": count, "load_seconds": loaded, **_memory("loaded"), "loaded_anonymous": memory.bytes}
        source = random.Random(1)
        known = repo.index.chunk_ids(source.randrange(count) for _ in range(COUNT))
        others = [os.urandom(32) for _ in range(COUNT)]
        told["hit_microseconds"] = _each(repo.missing, known)
        told["miss_microseconds"] = _each(repo.missing, others)
        told["hit_again_microseconds"] = _each(repo.missing, known)
        told["locate_microseconds"] = _each(repo.index.locate, known)
    print(json.dumps(told | _memory("peak") | {"peak_anonymous": memory.bytes}))


def _each(look: Callable[[list[bytes]], object], ids: Sequence[bytes]) -> float:
    """Microseconds for one chunk."""
    began = time.perf_counter()
    for start in range(0, len(ids), BATCH):
        look(list(ids[start : start + BATCH]))
    return (time.perf_counter() - began) / len(ids) * 1e6


def _memory(when: str) -> dict[str, int]:
    return {f"{when}_resident": _status("VmHWM")}


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


class _Anonymous:
    """Watches the memory that is no page of a file, which the kernel could not take back. Its peak, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.bytes = max(self.bytes, _status("RssAnon"))

    def __enter__(self) -> _Anonymous:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._ended.set()
        self._thread.join()


if __name__ == "__main__":
    main()
