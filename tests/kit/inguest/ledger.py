"""The workload that proves a point in time: record n+1 is not begun before record n is on its disk.

Each number is told to the host after its record was written and synced. Options: ``devices``, the fields of
``records.Layout``, ``first`` (1 clears the region; another number goes on with an old ledger) and ``pause`` in
seconds between records.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from types import FrameType
from typing import Any

from . import direct, latency, records


class Ledger:
    def __init__(self, layout: records.Layout, disks: list[direct.Device], first: int, pause: float) -> None:
        self._layout = layout
        self._disks = disks
        self._pause = pause
        self._history = records.History(layout)
        self._history.advance(first - 1)
        self._latency = latency.Recorder()
        self._ended = False

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        self._ended = True

    def run(self) -> None:
        if self._history.last == 0:
            for disk in self._disks:
                disk.write(self._layout.offset, bytes(self._layout.length))
        print(self._history.last, flush=True)
        while not self._ended:
            self._write_next()
            print(self._history.last, flush=True)
            time.sleep(self._pause)

    def _write_next(self) -> None:
        number = self._history.last + 1
        disk, slot = self._layout.place(number)
        self._history.advance(number)
        content = self._history.content(disk, slot)
        began = time.monotonic()
        self._disks[disk].write(self._layout.position(slot), content)
        finished = time.monotonic()
        written = number * self._layout.record
        self._latency.add(latency.Sample(finished, finished - began, written, written))


def main(options: dict[str, Any]) -> None:
    devices, first, pause = options.pop("devices"), options.pop("first"), options.pop("pause")
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(direct.Device(path, write=True, sync=True)) for path in devices]
        ledger = Ledger(records.Layout(disks=len(disks), **options), disks, first, pause)
        signal.signal(signal.SIGTERM, ledger.end)
        ledger.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
