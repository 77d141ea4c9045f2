"""Devices suspended for a moment, and resumed whatever becomes of us.

::

    signals are held back    a guard is ready    memory is locked    suspend all ... resume all    the guard goes
                                                                     if we are killed here, the guard resumes them

A disk that stays suspended cannot be unmounted, and a shutdown waits for it. Where it is the root disk, nobody could
start another one of us. So the guard also resumes those that wait for too long for another one, whose storage hangs:
then there was no such moment.
"""

import contextlib
import ctypes
import os
import select
import signal
import time
from typing import Iterator, List

from headstart.agentd import dmdevice, priority
from headstart.agentd.children import Child, Ended, Line
from headstart.agentd.filters import LIVE

_LOCK_ALL = 3
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_READY_SECONDS = 5.0
#: For how long at most one disk stands still for another one's sake.
LIMIT_SECONDS = 5.0
#: After it the guard counts the time.
_BEGIN = b"b"


class Moment:
    #: For how long nothing was written; told at its end.
    seconds = 0.0


@contextlib.contextmanager
def standstill(uuids: List[str], below: List[str]) -> Iterator[Moment]:
    """Nothing is written to any of them inside. Of ``below``, ``suspended`` may be used there. Nothing of ours may have
    to be read from any meanwhile, and nobody may keep us from running. Raises ``OSError``, also at the end: it took so
    long that not all of them may have stood still at once."""
    with _undisturbed(), _guarded([*below, *uuids]) as guard:
        _lock_memory()
        try:
            began = time.monotonic()
            guard.order(_BEGIN)
            moment = Moment()
            with priority.hurried(), contextlib.ExitStack() as stack:
                for uuid in uuids:
                    stack.enter_context(suspended(uuid))
                    _require_time(began)
                yield moment
                _require_time(began)
            moment.seconds = time.monotonic() - began
        finally:
            ctypes.CDLL(None).munlockall()


@contextlib.contextmanager
def suspended(uuid: str) -> Iterator[None]:
    """Raises ``OSError``."""
    with _undisturbed():
        try:
            dmdevice.suspend(uuid)
            yield
        finally:
            _resume(uuid)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that would end us, or the wait of ``suspend``, wait for the end of this."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _guarded(uuids: List[str]) -> Iterator[Child]:
    guard = Child(lambda line: _guard(line, uuids))
    try:
        _require_ready(guard)
        yield guard
        # Not in a finally: what we could not resume is tried once more by the guard.
        guard.order(b"x")
    finally:
        guard.release()
        _await_end(guard)
        guard.close()


def _await_end(guard: Child) -> None:
    """So that it does not resume what is suspended after it."""
    end = time.monotonic() + _READY_SECONDS
    with contextlib.suppress(Ended):
        while select.select([guard.news], [], [], max(0.0, end - time.monotonic()))[0]:
            guard.heard()


def _require_ready(guard: Child) -> None:
    """Raises ``OSError``."""
    told = []
    with contextlib.suppress(Ended):
        if select.select([guard.news], [], [], _READY_SECONDS)[0]:
            told = guard.heard()
    if not told or "failed" in told[0]:
        why = told[0]["failed"] if told else "it does not answer"
        raise OSError("the process that resumes disks if this one is killed is not ready: %s" % why)


def _require_time(began: float) -> None:
    """Before it is over the guard resumes none."""
    if time.monotonic() - began >= LIMIT_SECONDS:
        raise OSError("the disks could not be held back at one moment within %.0f s" % LIMIT_SECONDS)


def _guard(line: Line, uuids: List[str]) -> None:
    try:
        _lock_memory()
    except OSError as error:
        line.tell(failed=str(error))
        return
    line.tell(ready=True)
    if line.order() == _BEGIN and not line.ordered(time.monotonic() + LIMIT_SECONDS):
        _resume_all(uuids)
    if line.order():
        return
    _resume_all(uuids)


def _resume_all(uuids: List[str]) -> None:
    for uuid in uuids:
        with contextlib.suppress(OSError):
            if dmdevice.suspended(uuid):
                _resume(uuid)


def _resume(uuid: str) -> None:
    dmdevice.resume(uuid, hidden=not uuid.endswith(LIVE))


def _lock_memory() -> None:
    """Raises ``OSError``: what would have to be read from a suspended disk would never come."""
    if ctypes.CDLL(None, use_errno=True).mlockall(_LOCK_ALL):
        raise OSError("memory cannot be locked: %s" % os.strerror(ctypes.get_errno()))
