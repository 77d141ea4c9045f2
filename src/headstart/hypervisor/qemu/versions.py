"""Which releases of QEMU are known, and what each of them allows or breaks.

A row stands for what was run on the releases in ``RUN``, by the test that it names; where it only repeats QEMU's own
reference of QMP, it says so. Nothing is known of the releases between them but what lies on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from headstart import errors
from headstart.wire.qmp import Qmp

Release: TypeAlias = tuple[int, int, int]

#: Below it nothing was run; ``on-cbw-error``, without which a full scratch file is the guest's failure, came with 7.1.
OLDEST: Release = (7, 2, 0)
#: Debian 12, 13, and testing in November 2026; oldest first. ``make test-qemu`` runs the next one.
RUN: tuple[Release, ...] = ((7, 2, 22), (10, 0, 13), (11, 1, 2))
#: It did away with the lock of an iothread's disks (AioContext's), which older ones take wrongly in places.
UNLOCKED: Release = (9, 0, 0)


class Standing(Enum):
    """How well a release is known."""

    #: QEMU did not tell which it is.
    UNTOLD = "untold"
    TOO_OLD = "too old"
    #: This one was run, or one of the same series.
    RUN = "run"
    #: Older and newer ones were run.
    BETWEEN = "between"
    NEWER = "newer"


class Kind(Enum):
    #: Headstart cannot do without it.
    NEEDED = "needed"
    #: Some releases have it, and Headstart does not use it.
    UNUSED = "unused"
    #: A failure of QEMU's that Headstart goes around.
    FAULT = "fault"
    #: One that it cannot go around: such a VM is not backed up.
    REFUSED = "refused"


class Trait(Enum):
    """What a disk has that some faults are about."""

    IOTHREAD = "iothread"
    #: A throttle node of its owner's. (A limit that ``block_set_io_throttle`` sets is no node.)
    THROTTLE = "throttle"


@dataclass(frozen=True, slots=True)
class Row:
    """``before``: the first release where it is no longer so; None: it is so up to the newest. ``shown``:
    by a test, as ``FILE::NAME``. ``source``: of what that test cannot show. ``of``: disks that have all of these."""

    kind: Kind
    what: str
    since: Release
    shown: str
    before: Release | None = None
    source: str = ""
    of: frozenset[Trait] = frozenset()

    def holds(self, release: Release) -> bool:
        return self.since <= release and (self.before is None or release < self.before)


_HERE = "tests/hypervisor/qemu/test_versions.py::"

TABLE: tuple[Row, ...] = (
    Row(
        Kind.NEEDED,
        "a point in time that breaks instead of the guest (copy-before-write with on-cbw-error, cbw-timeout, bitmap)",
        (7, 2, 0),
        _HERE + "test_what_every_release_has",
        source="QMP reference: on-cbw-error and cbw-timeout since 7.1",
    ),
    Row(
        Kind.NEEDED,
        "reading the point in time, and letting go of parts of it (snapshot-access, with discard)",
        (7, 2, 0),
        _HERE + "test_what_every_release_has",
        source="QMP reference: snapshot-access since 7.0",
    ),
    Row(
        Kind.NEEDED,
        "rotating the bitmaps of all disks in one transaction, and reading them over NBD",
        (7, 2, 0),
        "tests/hypervisor/test_contract.py::test_rotation_loses_no_write",
    ),
    Row(
        Kind.UNUSED,
        "a backup job that breaks instead of the guest (blockdev-backup with on-cbw-error)",
        (11, 1, 2),
        _HERE + "test_what_some_releases_have",
    ),
    Row(
        Kind.FAULT,
        "aborts when an NBD client leaves a disk in an iothread",
        (7, 2, 0),
        _HERE + "test_an_nbd_client_leaves_a_disk_in_an_iothread",
        before=UNLOCKED,
        source="run on 7.2.22 and 10.0.13; between them QEMU's changelog, 9.0",
        of=frozenset({Trait.IOTHREAD}),
    ),
    Row(
        Kind.REFUSED,
        "aborts when a point in time is taken of a disk with a throttle node in an iothread",
        (7, 2, 0),
        _HERE + "test_a_throttled_disk_in_an_iothread",
        before=(10, 0, 13),
        of=frozenset({Trait.IOTHREAD, Trait.THROTTLE}),
    ),
)


def standing(release: Release) -> Standing:
    if not any(release):
        return Standing.UNTOLD
    if release < OLDEST:
        return Standing.TOO_OLD
    if any(release[:2] == run[:2] for run in RUN):
        return Standing.RUN
    return Standing.NEWER if release > RUN[-1] else Standing.BETWEEN


def faults(release: Release, disks: Mapping[str, Set[Trait]]) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """What this release is known to break, each with those of ``disks``, by name, that it is about."""
    for row in TABLE:
        if row.kind in (Kind.FAULT, Kind.REFUSED) and row.holds(release):
            concerned = tuple(name for name, traits in disks.items() if row.of <= traits)
            if concerned:
                yield row, concerned


def ask(qmp: Qmp) -> Release:
    found = qmp.execute("query-version")["qemu"]
    return found["major"], found["minor"], found["micro"]


def require(release: Release) -> None:
    """Raises ``Unsupported``: what is missing would show in the middle of a backup."""
    if standing(release) is Standing.TOO_OLD:
        raise errors.Unsupported(
            f"QEMU is {told(release)}, and Headstart needs {told(OLDEST[:2])} or newer."
            " Update QEMU, and start the VM anew."
        )


def require_sound(release: Release, disks: Mapping[str, Set[Trait]]) -> None:
    """Raises ``Unsupported`` for a VM that a point in time would end."""
    for row, concerned in faults(release, disks):
        if row.kind is Kind.REFUSED:
            raise errors.Unsupported(f"QEMU {told(release)} {row.what}: {', '.join(concerned)}. {remedy(row)}")


def remedy(row: Row) -> str:
    return f"Update QEMU, or start the VM without its {' or '.join(sorted(each.value for each in row.of))}."


def told(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))
