"""How busy a disk was with the requests of others.

The kernel tells for how long a disk had any request under way, but not whose. It tells apart for how long reads and
writes were; of each of both, what is not ours by bytes is the others'. ::

    busy   ##########  1.0 s, one or more requests under way
    reads  ######....  0.6 s  x  (1 - our share of the bytes read)
    writes ....######  0.6 s  x  (1 - our share of the bytes written)     flushes as writes

A guest that writes one small block after the other beside a large read of ours so counts as what it is: busy all the
time. One that reads small blocks beside it counts for too little; it is seen by its pressure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Activity:
    """In an interval. Seconds: ``busy`` with anything; the others are sums over all requests, so they may exceed it.
    ``flushing``: None where the kernel does not tell (before 5.5)."""

    busy: float
    reading: float
    writing: float
    flushing: float | None
    read_bytes: float
    written_bytes: float


def others(activity: Activity, own_reads: float = 0.0, own_writes: float = 0.0) -> float:
    """Seconds that a disk was busy with what is not ours. ``own_*``: our share of the bytes, 0 to 1.

    Never more than ``busy``, and less also without us: the kernel counts a whole tick (4 ms) for a request that takes
    0.1 ms (``update_io_ticks``), but sums up requests in nanoseconds."""
    busy = activity.busy
    if activity.flushing is None and own_reads == own_writes == 0:
        return busy
    reads = min(busy, activity.reading) * (1 - own_reads)
    writes = (min(busy, activity.writing) + min(busy, activity.flushing or 0.0)) * (1 - own_writes)
    return min(busy, reads + writes)
