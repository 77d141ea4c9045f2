"""One thread, one channel: orders are taken first, then what is ready is sent, then a little is read.

So an order to cancel or to thaw waits for one read of a disk at most, and a host that does not listen
stops us without costing anything.
"""

import select
import time
from typing import Dict, Optional

from headstart.agentd.links import Gone, Link
from headstart.agentd.session import Session

_IN = select.POLLIN | select.POLLHUP | select.POLLERR
#: How often to see whether somebody opens the other end of a virtio-serial port. Linux has no event that could be
#: waited for: poll tells POLLHUP all the time.
ABSENT_SECONDS = 0.5
#: Orders that were looked for longer ago than this are looked for again before anything is read: a busy guest may
#: have kept us from running for seconds in between, and has told the host so.
STALE_SECONDS = 0.1
_CHUNK = 64 * 1024
#: poll counts milliseconds in 32 bits.
_LONGEST_WAIT = 3600.0


def serve(link: Link, session: Session) -> None:
    """Until the link is ``Gone`` for good."""
    while True:
        try:
            if _turn(link, session):
                continue
        except Gone:
            session.clear()
            if link.once:
                raise
        # Nobody is at the other end.
        session.clear()
        time.sleep(ABSENT_SECONDS)


def _turn(link: Link, session: Session) -> bool:
    """Wait for something, and do it. False: nobody is at the other end."""
    # Before the wait: the guest may keep us from running between what poll saw and our hearing of it.
    looked = time.monotonic()
    ready = _wait(link, session)
    now = time.monotonic()
    events = ready.get(link.fileno(), 0)
    if events & select.POLLIN or link.pending():
        data = link.read(_CHUNK)
        if data == b"":
            if link.once:
                raise Gone("closed by the host")
            return False
        session.receive(data or b"")
    elif events & (select.POLLHUP | select.POLLERR):
        return False
    _write(link, session)
    for request, work in list(session.works.items()):
        waited = work.descriptor is not None and ready.get(work.descriptor)
        late = work.due is not None and work.due <= now
        if waited or late:
            session.step(request, now)
    if not session.outbox and time.monotonic() - looked < STALE_SECONDS:
        _read_on(session, now)
    _write(link, session)
    return True


def _read_on(session: Session, now: float) -> None:
    """One read of one request: the others have their turns after it."""
    for request, work in session.works.items():
        if work.hungry(session.credit):
            # Last in the order from now on.
            session.works[request] = session.works.pop(request)
            session.step(request, now)
            return


def _wait(link: Link, session: Session) -> Dict[int, int]:
    poll = select.poll()
    poll.register(link.fileno(), _IN | (select.POLLOUT if session.outbox else 0))
    for work in session.works.values():
        if work.descriptor is not None:
            poll.register(work.descriptor, _IN)
    return dict(poll.poll(_patience(link, session)))


def _patience(link: Link, session: Session) -> Optional[float]:
    """Milliseconds; None: for ever."""
    works = session.works.values()
    if link.pending() or (not session.outbox and any(work.hungry(session.credit) for work in works)):
        return 0
    dues = [due for due in [link.due, *(work.due for work in works)] if due is not None]
    return min(max(0.0, min(dues) - time.monotonic()), _LONGEST_WAIT) * 1000 if dues else None


def _write(link: Link, session: Session) -> None:
    while session.outbox:
        part = session.outbox[0]
        count = link.write(part)
        if count < len(part):
            session.outbox[0] = memoryview(part)[count:]
            return
        del session.outbox[0]
