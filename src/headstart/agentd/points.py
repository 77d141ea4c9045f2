"""A point in time of filters, and marks from which on they record: both while nothing is being written.

::

    ledger: the marks, of the next era    suspend all    [old content is saved from here on]    resume all
                                               |  all writes are done   |
    ------------------- era N -----------------|                        |------------ era N + 1 or later

A suspended filter begins a new era, which is durable when it is resumed. Suspending waits for all writes under way:
none is recorded in one era and seen only in the next one. Inside, nobody may ask an era target for its status: it would
not answer before it is resumed.
"""

import contextlib
from typing import ContextManager, Dict, Iterable, Iterator, List, Tuple

from headstart.agentd import dmdevice, filters, standstill
from headstart.agentd.devicemapper import SECTOR
from headstart.agentd.filters import BASE, COW, LIVE, POINT, Filter


def rotate(chosen: Iterable[Filter], starts: Dict[str, List[str]]) -> None:
    """Begin marks, by filter, at one moment. Raises ``OSError``, ``filters.Wrong``; then none has begun."""
    found = list(chosen)
    with _begun(found, starts), _standstill(found):
        for each in found:
            each.compare_counters()
    _settle(found)


def take(chosen: Iterable[Filter], starts: Dict[str, List[str]]) -> Tuple[Dict[str, str], float]:
    """The same, and at that moment their point in time; the kernel's names of what shows it, and for how many seconds
    nothing was written. Raises ``OSError``, ``filters.Wrong``; then none stands, and no mark has begun."""
    found = list(chosen)
    try:
        with _begun(found, starts):
            for each in found:
                dmdevice.create(each.title(COW), each.uuid(COW), each.table(COW))
                dmdevice.prepare(each.title(POINT), each.uuid(POINT), each.table(POINT))
            with _standstill(found) as moment:
                for each in found:
                    each.compare_counters()
                    with standstill.suspended(each.uuid(BASE)):
                        dmdevice.resume(each.uuid(POINT))
            _settle(found)
        return {each.name: each.device(POINT) or "" for each in found}, moment.seconds
    except BaseException:
        release(found)
        raise


def _settle(found: List[Filter]) -> None:
    for each in found:
        each.compare_era()
        each.ledger.write()


def release(chosen: Iterable[Filter]) -> None:
    """All of them, as far as they stand. Raises ``OSError``: somebody reads there."""
    found = list(chosen)
    stood = [each for each in found if each.device(POINT) is not None]
    with contextlib.ExitStack() as stack:
        stack.callback(_rejoin, stood)
        for each in found:
            stack.callback(_remove, each)


def _remove(each: Filter) -> None:
    for role in (POINT, COW):
        if each.device(role) is not None:
            dmdevice.remove(each.uuid(role))


def _rejoin(stood: List[Filter]) -> None:
    """What is written to their disks need not be cut to their chunks any longer. Else it is a little slower."""
    bases = [each.uuid(BASE) for each in stood]
    if bases:
        with contextlib.suppress(OSError), standstill.standstill([], bases):
            for base in bases:
                with standstill.suspended(base):
                    pass


def figures(each: Filter) -> Dict[str, int]:
    """``valid``; bytes ``used`` and there (``total``) of old content."""
    words = dmdevice.status(each.uuid(POINT))[0].arguments
    if not words or "/" not in words[0]:
        return {"valid": 0, "used": each.cow_bytes, "total": each.cow_bytes}
    used, total = words[0].split("/")
    return {"valid": 1, "used": int(used) * SECTOR, "total": int(total) * SECTOR}


def recover() -> None:
    """What one of us left that was killed: nobody may wait for it, and no old content is needed any longer. Best
    effort."""
    for name, uuid in dmdevice.every():
        if uuid.startswith("HEADSTART-") and name:
            with contextlib.suppress(OSError):
                if dmdevice.suspended(uuid):
                    dmdevice.resume(uuid, hidden=not uuid.endswith(LIVE))
    try:
        release(filters.standing().values())
    except (OSError, filters.Wrong):
        pass


@contextlib.contextmanager
def _begun(found: List[Filter], starts: Dict[str, List[str]]) -> Iterator[None]:
    before = [dict(each.ledger.marks) for each in found]
    try:
        for each in found:
            era = each.era()
            each.ledger.told["seen"] = max(era, int(each.ledger.told["seen"]))
            each.ledger.marks.update(dict.fromkeys(starts.get(each.name, ()), era + 1))
            each.ledger.write()
        yield
    except BaseException:
        for each, marks in zip(found, before):
            each.ledger.told["marks"] = {name: era for name, era in each.ledger.marks.items() if name in marks}
            with contextlib.suppress(OSError):
                each.ledger.write()
        raise


def _standstill(found: List[Filter]) -> ContextManager[standstill.Moment]:
    return standstill.standstill([each.uuid(LIVE) for each in found], [each.uuid(BASE) for each in found])
