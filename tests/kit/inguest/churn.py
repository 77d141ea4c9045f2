"""The workload that changes blocks: all of them once, in random order, and a few hot ones again and again.

Goes on with the hot ones when all have been changed. Tells the host how many distinct bytes it has changed; a line on
its standard input is a new rate. Options: see ``tests.kit.workloads.churn``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple, Protocol

from . import content, direct, latency

POOL = 2 << 20
TOLD_EVERY = 0.25

#: Behind by more than this many seconds (the VM stood still): do not catch up in a burst.
LATE = 1.0


class Target(Protocol):
    def write(self, offset: int, data: bytes) -> None: ...
    def flush(self) -> None: ...


class File:
    """A file in a mounted file system, written through the cache and synced."""

    def __init__(self, path: str, length: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(self._fd, 0, length)

    def write(self, offset: int, data: bytes) -> None:
        if os.pwrite(self._fd, data, offset) != len(data):
            raise EOFError(f"short write at {offset}")

    def flush(self) -> None:
        os.fdatasync(self._fd)


class Place(NamedTuple):
    """One of the blocks to change."""

    target: Target
    offset: int


class Content:
    """Blocks of which no two are equal; the given share of each compresses to nothing."""

    def __init__(self, seed: int, size: int, compressible: float) -> None:
        self._pool = content.random_bytes(seed, POOL)
        self._random = random.Random(seed)
        self._size = size
        self._constant = bytes([seed % 255 + 1]) * int(size * compressible)
        self._counter = itertools.count()

    def next(self) -> bytes:
        stamp = struct.pack("<QQ", next(self._counter), self._random.getrandbits(64))
        start = self._random.randrange(POOL - self._size)
        rest = self._pool[start : start + self._size - len(stamp) - len(self._constant)]
        return stamp + rest + self._constant


class Pace:
    """Holds a rate in bytes per second; None is as fast as it goes."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = time.monotonic()

    def read_new_rates(self) -> None:
        for line in sys.stdin:
            self._rate = json.loads(line)

    def wait(self, count: int) -> None:
        """Sleep as long as the next ``count`` bytes have to wait."""
        now = time.monotonic()
        if self._rate is None or now > self._due + LATE:
            self._due = now
        if self._due > now:
            time.sleep(self._due - now)
        if self._rate:
            self._due += count / self._rate


class Churn:
    def __init__(self, places: list[Place], options: dict[str, Any]) -> None:
        self._size: int = options["write_size"]
        self._sync_every: int = options["sync_every"]
        self._random = random.Random(options["seed"])
        self._content = Content(options["seed"], self._size, options["compressible"])
        self.pace = Pace(options["rate"])
        self._random.shuffle(places)
        hot = max(1, int(len(places) * options["hot"]))
        self._hot, self._cold = places[:hot], places[hot:]
        self._hot_share: float = options["hot_share"]
        self._changed: set[Place] = set()
        self._written = 0
        self._latency = latency.Recorder()
        self._told = -TOLD_EVERY
        self._ended = False

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        self._ended = True

    def run(self) -> None:
        order = self._order()
        self._tell()
        while not self._ended:
            self.pace.wait(self._size * self._sync_every)
            self._write(list(itertools.islice(order, self._sync_every)))
            self._tell()

    def _order(self) -> Iterator[Place]:
        cold = iter(self._cold)
        first = iter(self._hot)
        while True:
            if self._random.random() < self._hot_share:
                yield next(first, None) or self._random.choice(self._hot)
            else:
                yield next(cold, None) or self._random.choice(self._hot)

    def _write(self, batch: list[Place]) -> None:
        """Write and sync; the time is what an application that commits would wait."""
        contents = [self._content.next() for _ in batch]
        began = time.monotonic()
        for place, block in zip(batch, contents, strict=True):
            place.target.write(place.offset, block)
        for target in {place.target for place in batch}:
            target.flush()
        finished = time.monotonic()
        self._changed.update(batch)
        self._written += self._size * len(batch)
        distinct = len(self._changed) * self._size
        self._latency.add(latency.Sample(finished, finished - began, self._written, distinct))

    def _tell(self) -> None:
        if time.monotonic() > self._told + TOLD_EVERY:
            self._told = time.monotonic()
            print(len(self._changed) * self._size, flush=True)


def main(options: dict[str, Any]) -> None:
    with contextlib.ExitStack() as stack:
        places: list[Place] = []
        for path, offset, length in options["targets"]:
            if path.startswith("/dev/"):
                target: Target = stack.enter_context(direct.Device(path, write=True))
            else:
                target = File(path, offset + length)
            step = options["write_size"]
            places += [Place(target, start) for start in range(offset, offset + length - step + 1, step)]
        churn = Churn(places, options)
        signal.signal(signal.SIGTERM, churn.end)
        threading.Thread(target=churn.pace.read_new_rates, daemon=True).start()
        churn.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
