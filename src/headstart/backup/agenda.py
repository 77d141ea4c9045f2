r"""When the next round begins.

::

    |-- interval --|-- interval --|----|--|-||| deadline        each round halves the way to the last one, which ends
                                            ^ last              just before the deadline

Each rotation costs a few milliseconds of the guest's I/O and about a second of ours. What a round leaves is what the
guest writes until the deadline: so rounds come closer together, down to ``LEAST``, and what is left is really hot.
"""

from __future__ import annotations

from headstart.backup import selection

#: Seconds from the end of a round to the next one, at least.
LEAST = 5.0
#: A rotation, reading the marks, deciding: seconds before anything is copied.
ROTATION = 1.0
#: The last round ends so long before the deadline, as expected: a completion begins on time.
MARGIN = 1.0
#: Of the way from the end of a round to the last one, so much passes before the next.
CLOSER = 0.5


def next_round(
    now: float,
    deadline: float | None = None,
    ended: float | None = None,
    *,
    interval: float = 900.0,
    begin_before: float | None = None,
    seconds: float = 0.0,
) -> float | None:
    """The moment, ``now`` or later; None: there is no time for another round before the deadline.

    ``ended``: when the last round since the last backup did (None: there was none). ``begin_before`` the deadline, at
    the earliest. ``seconds``: how long copying will take, as expected (see ``duration``)."""
    far = now if ended is None else max(now, ended + interval)
    if deadline is None:
        return far
    last = deadline - MARGIN - ROTATION - seconds
    if last <= now or (ended is not None and last < ended + LEAST):
        return now if _never_yet(ended, deadline, now) else None
    begin = now if ended is None else max(ended, now - LEAST)
    at = last if last - begin < 2 * LEAST else min(far, max(begin + LEAST, begin + (last - begin) * CLOSER))
    if begin_before is not None:
        at = max(at, deadline - begin_before)
    return max(now, min(at, last))


def duration(remaining: int, rate: float | None) -> float:
    """Seconds to copy so many bytes at a rate (bytes a second; None: not known)."""
    return remaining / max(rate or selection.RATE, 1.0)


def _never_yet(ended: float | None, deadline: float, now: float) -> bool:
    """A first round is worth it also if it will not come to its end."""
    return ended is None and deadline - now > LEAST
