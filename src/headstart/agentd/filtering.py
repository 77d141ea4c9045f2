"""What the host asks about filters.

::

    ASK filters                  what there is, and what does not stand
    ASK greet                    words by which both sides find out that one of them is older than it was
    ASK marks                    ``start``, at one moment; ``drop``
    ASK changes                  NOTE since, ranges    ...    ANSWER ended
    ASK flush                    what has been written to them outlasts a power cut, with the record of it
    ASK hold    NOTE stands     ...     ANSWER released      the request is under way while the point in time stands
    ASK held                     how much old content it has
    ASK release                  ANSWER released
"""

import os
import platform
import re
import time
from typing import Any, Dict, List, Optional

from headstart.agentd import changes, filters, messages, nodes, points, priority
from headstart.agentd.children import Child, Ended, Line
from headstart.agentd.filters import Filter, Wrong
from headstart.agentd.session import Handler, Session
from headstart.agentd.work import Refused, Work

_MARK = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")
_WORD = re.compile(r"[0-9a-f]{8,64}\Z")
_MOST_MARKS = 256
_LONGEST_HOLD = 7 * 86400.0


class Hold(Work):
    """A point in time. Its end, of whatever kind, takes it away."""

    keeps = True

    def __init__(self, session: Session, request: int, chosen: List[Filter], told: Dict[str, Any]) -> None:
        self._chosen = chosen
        stands, seconds = points.take(chosen, told["start"])
        self.due = time.monotonic() + min(float(told["limit"]), _LONGEST_HOLD)
        self._stands = True
        note = {"stands": {name: {"device": device} for name, device in stands.items()}, "seconds": seconds}
        session.send(request, messages.NOTE, messages.pack_json(note))

    def figures(self) -> Dict[str, Any]:
        return {each.name: points.figures(each) for each in self._chosen}

    def step(self, now: float) -> None:
        if self.answer is None:
            raise Refused(messages.FAILED, "the point in time stood for too long")

    def release(self) -> None:
        """Raises ``OSError``: somebody reads there. Then the next ``hold`` or ``filters`` does it."""
        if self._stands:
            self._stands = False
            points.release(self._chosen)

    def cancel(self) -> None:
        try:
            self.release()
        except OSError:
            # Somebody else reads there; ``tidy`` does the rest.
            pass


def describe(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    """``filters``."""
    _tidy(session)
    return {
        "filters": [_described(place) for place in _guarded(filters.configured)],
        "grain": filters.GRAIN,
        "unreadable": _unreadable(),
        "forgets": filters.forgets(platform.release(), platform.version()),
    }


def _unreadable() -> str:
    """Why nobody could tell what was recorded; empty if somebody can."""
    try:
        changes.program()
        return ""
    except OSError as error:
        return str(error)


def _described(place: filters.Place) -> Dict[str, Any]:
    missing = filters.missing(place)
    if missing:
        return {"name": place.name, "missing": missing}
    found = Filter(place)
    used, total = found.metadata()
    told = found.ledger.told
    return {
        "name": found.name,
        "missing": "",
        "id": told["id"],
        "size": found.size,
        "origin": place.origin,
        "device": found.device(filters.LIVE),
        "era": found.era(),
        "marks": found.ledger.marks,
        "metadata": [used, total],
        "cow": found.cow_bytes,
    }


def greet(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    """``greet``: ``installation`` leaves a new ``word`` at each filter. Where what it kept from the last time is not
    there, ``kept`` or the ledger is an old copy: its marks are not believed. Tells why any were not, since the last
    time."""
    installation, word = str(told["installation"]), str(told["word"])
    if not re.match(r"[0-9a-f]{8}\Z", installation) or not _WORD.match(word):
        raise Refused(messages.WRONG, "no such words")
    kept, doubted = told["kept"], {}
    for each in _guarded(filters.standing).values():
        known = kept.get(each.name)
        each.compare_era()
        each.compare_boot()
        each.compare_discards()
        if known is not None and known not in each.ledger.met(installation):
            each.ledger.doubt("its record of changes is not the one of the last contact", installation)
        each.ledger.meet(installation, known, word)
        if each.ledger.told["reason"]:
            doubted[each.name], each.ledger.told["reason"] = each.ledger.told["reason"], ""
        _guarded(each.ledger.write)
    return {"doubted": doubted}


def mark(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    """``marks``."""
    starts, drops = _marks(told["start"]), _marks(told["drop"])
    found = _chosen([*starts, *drops])
    _require_new(found, starts)
    for name, marks in drops.items():
        for each in marks:
            found[name].ledger.marks.pop(each, None)
        _guarded(found[name].ledger.write)
    if starts:
        _guarded(lambda: points.rotate([found[name] for name in starts], starts))
    return {}


def tell(session: Session, request: int, told: Dict[str, Any]) -> Work:
    """``changes`` of the ``filter`` since each era in ``since``."""
    since = [int(each) for each in told["since"]]
    if not 0 < len(since) <= _MOST_MARKS or min(since) < 0:
        raise Refused(messages.WRONG, "no such eras")
    return changes.Telling(session, request, _chosen([told["filter"]])[told["filter"]], since)


class Flushing(Work):
    """By a child: a disk may take its time."""

    def __init__(self, chosen: List[Filter]) -> None:
        """Raises ``OSError``."""
        self._child: Optional[Child] = Child(lambda line: _flush(line, chosen))
        self.descriptor = self._child.news

    def step(self, now: float) -> None:
        assert self._child is not None
        try:
            for told in self._child.heard():
                if "failed" in told:
                    raise Refused(messages.FAILED, told["failed"])
                self.answer = told
        except Ended:
            raise Refused(messages.FAILED, "the process that was to flush has died") from None

    def cancel(self) -> None:
        if self._child is not None:
            self._child.release()
            self._child.close()
            self._child = None


def _flush(line: Line, chosen: List[Filter]) -> None:
    try:
        for each in chosen:
            descriptor = os.open(nodes.block(str(each.device(filters.LIVE))), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        line.tell(flushed=len(chosen))
    except OSError as error:
        line.tell(failed="what was written cannot be flushed: %s" % error)


def flush(session: Session, request: int, told: Dict[str, Any]) -> Work:
    """``flush`` of ``filters``."""
    return Flushing(list(_chosen(told["filters"]).values()))


def hold(session: Session, request: int, told: Dict[str, Any]) -> Work:
    """``hold`` of ``filters``, with marks to ``start``, for ``limit`` seconds at most."""
    if _held(session) is not None:
        raise Refused(messages.WRONG, "this session has a point in time already")
    _tidy(session)
    told["start"] = _marks(told["start"])
    found = _chosen(told["filters"])
    _require_new(found, told["start"])
    chosen = list(found.values())
    work: Work = _guarded(lambda: Hold(session, request, chosen, told))
    return work


def held(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    found = _held(session)
    return {"held": {} if found is None else _guarded(found.figures)}


def release(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    found = _held(session)
    if found is not None:
        _guarded(found.release)
        found.answer = {"released": True}
        found.due = 0.0
    return {"released": found is not None}


def _held(session: Session) -> Optional[Hold]:
    return next((work for work in session.works.values() if isinstance(work, Hold)), None)


def _tidy(session: Session) -> None:
    """What a session before this one could not take away."""
    if _held(session) is None:
        points.recover()


def _chosen(names: Any) -> Dict[str, Filter]:
    found: Dict[str, Filter] = _guarded(filters.standing)
    for name in names:
        if name not in found:
            raise Refused(messages.WRONG, "no filter %r stands" % (name,))
    return {name: found[name] for name in dict.fromkeys(names)}


def _require_new(found: Dict[str, Filter], starts: Dict[str, List[str]]) -> None:
    for name, marks in starts.items():
        there = found[name].ledger.marks if name in found else {}
        if name not in found or any(each in there for each in marks) or len(there) + len(marks) > _MOST_MARKS:
            raise Refused(messages.WRONG, "a mark of %s is there already, or there are too many" % name)


def _marks(told: Any) -> Dict[str, List[str]]:
    marks = {str(name): [str(each) for each in of] for name, of in told.items()}
    if not all(_MARK.match(each) for of in marks.values() for each in of):
        raise Refused(messages.WRONG, "no such marks")
    return marks


def _guarded(call: Any) -> Any:
    """``Refused`` in words where a filter is not what it should be."""
    try:
        return call()
    except Wrong as error:
        raise Refused(messages.FAILED, str(error)) from None


def _hurried(handler: Handler) -> Handler:
    """A busy guest would make each of them take seconds, while writes are held back or old content is saved."""

    def handle(session: Session, request: int, told: Dict[str, Any]) -> Any:
        with priority.hurried():
            return handler(session, request, told)

    return handle


HANDLERS: Dict[str, Handler] = {
    "filters": _hurried(describe),
    "greet": _hurried(greet),
    "marks": _hurried(mark),
    "changes": tell,
    "flush": flush,
    "hold": _hurried(hold),
    "held": held,
    "release": _hurried(release),
}
