"""Immutable repositories: their objects are locked by the store when they are made, but for what comes and goes."""

from __future__ import annotations

from headstart import errors
from headstart.repository import layout
from headstart.store.contract import Protection, Store

#: Nobody can undo a lock: a slip of the pen is not to be paid for longer.
MAX_DAYS = 3650
#: They come and go.
_OUTSIDE = (
    *(layout.DRAFTS, layout.LEASES, layout.LABELS, layout.PROOFS, layout.EVIDENCE),
    *(layout.CONDEMNED, layout.DOOMED),
)


def of(days: int) -> Protection:
    return Protection(days, _OUTSIDE)


def require(store: Store, days: int) -> None:
    """Raises ``Usage``, or ``Unsupported`` where the place cannot lock for so long."""
    if not 0 < days <= MAX_DAYS:
        raise errors.Usage(f"Objects can be immutable for 1 to {MAX_DAYS} days, not {days}.")
    locks = store.locks()
    if locks is None:
        raise errors.Unsupported(
            f"{store!r} cannot make objects immutable. Use a bucket of S3 that was made with object lock."
        )
    if not locks.available():
        raise errors.Unsupported(
            f"The bucket of {store!r} was made without object lock. Make one with it: 'aws s3api create-bucket"
            " --object-lock-enabled-for-bucket'."
        )
    kept = locks.days()
    if kept is not None and kept < days:
        raise errors.Unsupported(
            f"{store!r} keeps objects immutable for {kept} days, and not for {days}. An admin of the tenant makes a"
            " repository with more."
        )


def protect(store: Store, days: int) -> int:
    """What is created from now on is locked; of a copy in another kind of place, nothing. Returns the days for which it
    is: fewer where a place has its own, which an admin has lowered, or that of a mirror."""
    locks = store.locks()
    if not days or locks is None:
        return days
    locks.protect(of(days))
    kept = locks.days()
    return days if kept is None else min(days, kept)
