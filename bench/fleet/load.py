"""A day of a fleet in a few minutes: the steady part at its own rate, and the nightly peak.

Requests are due at fixed moments, whatever the ones before took: a server that is late is late for all that wait.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from bench.fleet.clock import Clock
from bench.fleet.hosts import Host

THREADS = 48
#: As the daemon does it.
PULSE_SECONDS, FIGURES_SECONDS = 15.0, 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """``commits`` a second, over all hosts; 0: none."""

    seconds: float
    commits: float = 0.0


@dataclass(order=True, slots=True)
class _Due:
    moment: float
    act: Callable[[], None] = field(compare=False)
    #: So many seconds later; 0: never.
    again: float = field(default=0.0, compare=False)


def run(hosts: list[Host], load: Load, clock: Clock) -> float:
    """How far behind its moment the last request began, seconds."""
    begin = time.monotonic() + 1.0
    queue = list(_due(hosts, load, begin))
    heapq.heapify(queue)
    lock, late = threading.Lock(), [0.0]

    def work() -> None:
        while True:
            with lock:
                if not queue or queue[0].moment > begin + load.seconds:
                    return
                due = heapq.heappop(queue)
                if due.again:
                    heapq.heappush(queue, _Due(due.moment + due.again, due.act, due.again))
            time.sleep(max(0.0, due.moment - time.monotonic()))
            late[0] = max(late[0], time.monotonic() - due.moment)
            try:
                due.act()
            except Exception as error:
                clock.failed(str(error))

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(work) for _ in range(THREADS)]:
            done.result()
    return late[0]


def _due(hosts: list[Host], load: Load, begin: float) -> Iterable[_Due]:
    for number, host in enumerate(hosts):
        share = number / len(hosts)
        yield _Due(begin + share * PULSE_SECONDS, host.pulse, PULSE_SECONDS)
        yield _Due(begin + share * FIGURES_SECONDS, partial(host.figures, 5), FIGURES_SECONDS)
    for number in range(int(load.commits * load.seconds)):
        host = hosts[number % len(hosts)]
        name = host.vms[number // len(hosts) % len(host.vms)]
        yield _Due(begin + number / load.commits, partial(host.back_up, name))
