"""The process that keeps file systems frozen, and thaws them whatever becomes of everybody else.

It runs the scripts, freezes, and thaws when it is told to, when nobody is left who could tell it, and at its deadline.
What it does stands in a note beforehand, for the case that it is killed together with agentd.
"""

import fcntl
import json
import os
import time
from typing import Any, Callable, Dict, List, Tuple

from headstart.agentd import filesystems, scripts
from headstart.agentd.children import Line
from headstart.agentd.filesystems import Freezing, Place

#: Nothing is kept frozen for longer, whatever the host asks for.
LONGEST_SECONDS = 10.0
#: What is not frozen after this part of the time would not stay frozen for long enough.
READY_SHARE = 0.7
#: Places for the note that are gone with the guest's memory.
_FOLDERS = ("/run", "/dev")
_NAME = "headstart-agentd.frozen"
_POLL_SECONDS = 0.02


class Note:
    """What this guest's agentd has frozen. Locked by whoever freezes or thaws: one at a time."""

    def __init__(self) -> None:
        """Raises ``OSError``."""
        folder = next((folder for folder in _FOLDERS if os.path.isdir(folder)), _FOLDERS[-1])
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(os.path.join(folder, _NAME), flags, 0o600)

    def lock(self, deadline: float, stopped: Callable[[], bool]) -> bool:
        """False if it took too long, or was ``stopped``."""
        while not self._locked():
            if time.monotonic() > deadline or stopped():
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write(self, places: List[Place], called: List[str]) -> None:
        """Before it is done. Raises ``OSError``."""
        mounts = [[place.number, place.point] for place in places]
        text = json.dumps({"boot": _boot(), "mounts": mounts, "scripts": called}).encode("utf-8")
        # At once: over all that it says now, which ends in spaces if it was longer.
        os.pwrite(self._descriptor, text.ljust(os.fstat(self._descriptor).st_size), 0)

    def read(self) -> Tuple[List[Tuple[str, str]], List[str]]:
        """Mounts by number and point, and scripts; of this boot."""
        try:
            text = os.pread(self._descriptor, 1 << 20, 0).decode("utf-8")
            told: Dict[str, Any] = json.loads(text)
            if told["boot"] != _boot():
                return [], []
            return [(number, point) for number, point in told["mounts"]], list(told["scripts"])
        except (ValueError, KeyError, TypeError):
            # Empty, or half of it: what it was to tell was not begun.
            return [], []

    def lies_on(self, places: List[Place]) -> bool:
        own = os.fstat(self._descriptor).st_dev
        return any(os.fstat(place.descriptor).st_dev == own for place in places)

    def clear(self) -> None:
        os.ftruncate(self._descriptor, 0)


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def keep(line: Line, deadline: float) -> None:
    """Tells ``frozen`` and ``skipped``, then ``thawed`` and ``early``; or ``failed``."""
    try:
        note = Note()
        ready = time.monotonic() + (deadline - time.monotonic()) * READY_SHARE
        if note.lock(ready, lambda: line.ordered(0)):
            _Keeper(line, note, ready, deadline).run()
        else:
            line.tell(failed="an earlier freeze has not ended yet")
    except OSError as error:
        line.tell(failed=str(error))


class _Keeper:
    def __init__(self, line: Line, note: Note, ready: float, deadline: float) -> None:
        self._line = line
        self._note = note
        self._ready = ready
        self._deadline = deadline
        self._called: List[str] = []

    def run(self) -> None:
        wanted = scripts.found()
        try:
            self._note.write([], wanted)
            failure = self._call(wanted)
            if failure:
                self._line.tell(failed=failure)
            else:
                self._freeze(wanted)
        finally:
            _call_thaw(self._called)
            self._note.clear()

    def _call(self, wanted: List[str]) -> str:
        """Why this is not to be frozen."""
        for path in wanted:
            self._called.append(path)
            failure = scripts.run(path, "freeze", self._stopped)
            if failure:
                return failure
        return "the time is over" if self._stopped() else ""

    def _stopped(self) -> bool:
        return time.monotonic() > self._ready or self._line.ordered(0)

    def _freeze(self, wanted: List[str]) -> None:
        places = filesystems.opened()
        self._note.write(places, wanted)
        freezing = Freezing(places)
        try:
            ordered = self._line.ordered(self._ready, freezing.ended)
            failure = "" if ordered else self._failure(freezing)
            if ordered or failure:
                freezing.thaw()
                self._line.tell(failed=failure or "it was given up")
            else:
                self._disown(freezing)
                self._line.tell(frozen=len(freezing.frozen), skipped=freezing.skipped)
                early = not self._line.ordered(self._deadline)
                self._line.tell(thawed=freezing.thaw(), early=early)
        finally:
            freezing.thaw()
            freezing.wait()

    def _failure(self, freezing: Freezing) -> str:
        if not freezing.done:
            return "freezing %s takes too long" % freezing.where
        return freezing.failure

    def _disown(self, freezing: Freezing) -> None:
        """Out of the note with what somebody else has frozen, where it can be written."""
        if freezing.skipped and not self._note.lies_on(freezing.frozen):
            self._note.write(freezing.frozen, self._called)


def _call_thaw(called: List[str]) -> None:
    """All of them, whatever one of them does."""
    for path in reversed(called):
        scripts.run(path, "thaw", lambda: False)


def arm(line: Line, deadline: float) -> None:
    """At the deadline thaw whatever is frozen then, whoever has frozen it; unless there is an order before. Outlives
    agentd."""
    places = filesystems.opened()
    line.tell(armed=len(places))
    if line.ordered(deadline) and line.order():
        return
    time.sleep(max(0.0, deadline - time.monotonic()))
    filesystems.thaw(places)


def recover(line: Line) -> None:
    """Thaw what a keeper that was killed has left. One that lives does that by itself."""
    note = Note()
    if not note.lock(time.monotonic() + 2 * LONGEST_SECONDS, lambda: False):
        return
    mounts, called = note.read()
    if mounts:
        filesystems.thaw(filesystems.opened(mounts))
    _call_thaw(called)
    note.clear()
