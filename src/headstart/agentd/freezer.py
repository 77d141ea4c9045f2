"""What the host asks about freezing. The work is done by children: agentd itself never waits for a file system.

::

    ASK freeze    NOTE frozen, skipped     ...     ANSWER thawed, early         the request is under way while all
                                                                                is frozen, and its end is the thaw
    ASK thaw                                       ANSWER thawed, early
"""

import time
from typing import Any, Dict, Optional

from headstart.agentd import keeper, messages, priority
from headstart.agentd.children import Child, Ended
from headstart.agentd.session import Session
from headstart.agentd.work import Refused, Work

_THAW = b"t"
_DISARM = b"d"


class Kept(Work):
    """File systems frozen by a keeper. Its end, of whatever kind, thaws them."""

    def __init__(self, session: Session, request: int, seconds: float) -> None:
        """Raises ``OSError``."""
        deadline = time.monotonic() + seconds
        self._session = session
        self._request = request
        self._child: Optional[Child] = Child(lambda line: keeper.keep(line, deadline))
        self.descriptor = self._child.news
        #: The request to thaw: has the same answer.
        self._thaw: Optional[Work] = None
        # An order to thaw must not wait until the guest has nothing else to do.
        priority.normal()

    def thaw(self) -> Work:
        if self._thaw is None:
            self._thaw = Work()
            if self._child is not None:
                self._child.order(_THAW)
        return self._thaw

    def step(self, now: float) -> None:
        if self._child is None:
            return
        try:
            for told in self._child.heard():
                self._take(told)
        except Ended:
            recover()
            raise Refused(messages.FAILED, "the process that was to thaw has died") from None

    def _take(self, told: Dict[str, Any]) -> None:
        if "failed" in told:
            raise Refused(messages.FAILED, told["failed"])
        if "thawed" in told:
            self.answer = told
        else:
            self._session.send(self._request, messages.NOTE, messages.pack_json(told))

    def cancel(self) -> None:
        if self._child is None:
            return
        self._child.release()
        self._child.close()
        self._child = None
        if self._thaw is not None:
            self._thaw.answer = self.answer or NOTHING
            self._thaw.due = 0.0
        priority.lower()


class Arming(Work):
    """A child opens what it is to thaw. Whatever becomes of this request, it stays."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.descriptor = child.news

    def step(self, now: float) -> None:
        try:
            for told in self._child.heard():
                self.answer = told
        except Ended:
            raise Refused(messages.FAILED, "the process that was to thaw has died") from None

    def cancel(self) -> None:
        self._child.close()


#: The answer to ``thaw`` when nothing is frozen any longer.
NOTHING: Dict[str, Any] = {"thawed": 0, "early": True}


def recover() -> None:
    """Thaw what a killed keeper has left frozen: one of ours, or of an agentd before us."""
    try:
        child = Child(keeper.recover)
    except OSError:
        return
    child.release()
    child.close()


def _limit(told: Dict[str, Any]) -> float:
    seconds = float(told["limit"])
    if not seconds > 0:
        raise ValueError("limit")
    return min(seconds, keeper.LONGEST_SECONDS)


class Freezer:
    """Handlers. At most one child is armed, whichever session wanted it."""

    def __init__(self) -> None:
        self._armed: Optional[Child] = None

    def freeze(self, session: Session, request: int, told: Dict[str, Any]) -> Work:
        """``freeze`` for ``limit`` seconds at most."""
        if _kept(session) is not None:
            raise Refused(messages.WRONG, "this session has frozen already")
        return Kept(session, request, _limit(told))

    def thaw(self, session: Session, request: int, told: Dict[str, Any]) -> Any:
        kept = _kept(session)
        return NOTHING if kept is None else kept.thaw()

    def arm(self, session: Session, request: int, told: Dict[str, Any]) -> Work:
        """``arm``: after ``limit`` seconds thaw whatever is frozen then."""
        deadline = time.monotonic() + _limit(told)
        self._disarm()
        self._armed = Child(lambda line: keeper.arm(line, deadline))
        return Arming(self._armed)

    def disarm(self, session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
        return {"disarmed": self._disarm()}

    def _disarm(self) -> bool:
        """Whether there was a child that had not yet acted."""
        child, self._armed = self._armed, None
        if child is None:
            return False
        found = child.order(_DISARM)
        child.release()
        return found


def _kept(session: Session) -> Optional[Kept]:
    return next((work for work in session.works.values() if isinstance(work, Kept)), None)
