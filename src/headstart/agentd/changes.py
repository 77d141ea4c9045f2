"""What a filter has recorded, told by ``era_invalidate`` of Debian's and others' thin-provisioning-tools."""

import fcntl
import os
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from headstart.agentd import dmdevice, filters, messages, nodes
from headstart.agentd.children import Child, Ended, Line
from headstart.agentd.filters import LIVE, META, Filter
from headstart.agentd.session import Session
from headstart.agentd.work import Refused, Work

PROGRAM = "era_invalidate"
#: With what it ends from version 1 on where it does not know its arguments; then nothing was told.
_USAGE = 2
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")
_LOCK = "/run/headstart-changes"
#: Of one note: such a frame is far from too long.
RANGES = 4000
_LATER_SECONDS = 0.01
#: ``end`` is the first block that is not meant.
_FOUND = re.compile(
    rb'(?P<begun><blocks>)|<block block="(?P<block>\d+)"\s*/>'
    rb'|<range begin="(?P<begin>\d+)" end ?= ?"(?P<end>\d+)"\s*/>|</blocks>'
)
Range = Tuple[int, int]


class Telling(Work):
    """Of each of the eras, in a NOTE or more: ``since`` and ``ranges`` of blocks of ``filters.GRAIN`` bytes that were
    written then or later."""

    def __init__(self, session: Session, request: int, found: Filter, since: List[int]) -> None:
        """Raises ``OSError``."""
        self._session = session
        self._request = request
        self._child: Optional[Child] = Child(lambda line: _tell(line, found, since))
        self.descriptor = self._news = self._child.news

    def step(self, now: float) -> None:
        if self._child is None:
            return
        if self._session.outbox:
            # The host is slow: what waits for it must not grow.
            self.descriptor, self.due = None, now + _LATER_SECONDS
            return
        self.descriptor, self.due = self._news, None
        try:
            for told in self._child.heard():
                self._take(told)
        except Ended:
            raise Refused(messages.FAILED, "the process that was to read the record has died") from None

    def _take(self, told: Dict[str, Any]) -> None:
        if "failed" in told:
            raise Refused(messages.FAILED, told["failed"])
        if "ended" in told:
            self.answer = told
        else:
            self._session.send(self._request, messages.NOTE, messages.pack_json(told))

    def cancel(self) -> None:
        if self._child is not None:
            self._child.release()
            self._child.close()
            self._child = None


def _tell(line: Line, found: Filter, since: List[int]) -> None:
    try:
        with open(_LOCK, "w") as lock:
            # Of a record there is one snapshot at a time.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if found.has_snapshot():
                dmdevice.message(found.uuid(LIVE), "drop_metadata_snap")
            dmdevice.message(found.uuid(LIVE), "take_metadata_snap")
            try:
                for era in since:
                    for ranges in _portions(changed(nodes.block(str(found.device(META))), era)):
                        line.tell(since=era, ranges=ranges)
            finally:
                dmdevice.message(found.uuid(LIVE), "drop_metadata_snap")
        line.tell(ended=True)
    except (OSError, filters.Wrong) as error:
        line.tell(failed="what was written cannot be told: %s" % error)


def _portions(ranges: Iterator[Range]) -> Iterator[List[Range]]:
    kept: List[Range] = []
    for each in ranges:
        kept.append(each)
        if len(kept) == RANGES:
            yield kept
            kept = []
    yield kept


class _Misunderstood(Exception):
    """How it was called."""


def changed(path: str, since: int) -> Iterator[Range]:
    """Blocks written in era ``since`` or later. Raises ``OSError`` unless all was told."""
    try:
        yield from _told("--metadata-snapshot", path, since)
    except _Misunderstood:
        # 1.0.7 to 1.2.1 want a value there, and take any.
        yield from _told("--metadata-snapshot=yes", path, since)


def _told(option: str, path: str, since: int) -> Iterator[Range]:
    # Here, and not at the top: only a child of ours loads it.
    import subprocess

    command = [program(), option, "--written-since", str(since), path]
    failure = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            yield from parse(iter(lambda: process.stdout.read(1 << 16), b""))  # type: ignore[union-attr]
        except OSError as error:
            failure = error
        said = process.stderr.read(1000).decode("utf-8", "replace").strip()
    if process.returncode == _USAGE and option == "--metadata-snapshot":
        raise _Misunderstood
    if process.returncode != 0:
        raise OSError("%s ended with %d: %s" % (PROGRAM, process.returncode, said))
    if failure is not None:
        raise failure


def parse(pieces: Iterator[bytes]) -> Iterator[Range]:
    """Raises ``OSError`` where the end is missing."""
    rest, ended = b"", False
    for piece in pieces:
        rest += piece
        last = 0
        for match in _FOUND.finditer(rest):
            if rest[last : match.start()].strip():
                raise OSError("%s says something that is not understood" % PROGRAM)
            last = match.end()
            if match["begun"] is not None:
                continue
            if match["block"] is not None:
                yield int(match["block"]), int(match["block"]) + 1
            elif match["begin"] is not None:
                yield int(match["begin"]), int(match["end"])
            else:
                ended = True
        rest = rest[last:]
    if not ended or rest.strip():
        raise OSError("%s says something that is not understood" % PROGRAM)


def program() -> str:
    """Raises ``OSError``."""
    for folder in _FOLDERS:
        path = os.path.join(folder, PROGRAM)
        if os.access(path, os.X_OK):
            return path
    raise OSError("there is no %s in the guest: install thin-provisioning-tools" % PROGRAM)
