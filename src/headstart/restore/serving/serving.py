"""Offering the disks of a snapshot over NBD, for as long as needed: nbdkit, as a child that ends with us.

::

    Serving  --- an offer --->  nbdkit [filter cow] python nbdplugin.py  --->  DiskView of each disk  --->  store
                                  |
    any client of NBD  <----------+   unix socket or TCP; the disk's name is the export's

The child opens the repository once more: nothing that clients do can hold up or spoil what this process does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from headstart import errors, plain
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore.serving import offer
from headstart.restore.serving.offer import Offer
from headstart.restore.serving.places import Place, Unix
from headstart.store import membership
from headstart.wire import children

__all__ = ["Serving", "Source", "Unix"]

_log = logging.getLogger(__name__)

#: Opening a repository far away, and loading its index.
START_SECONDS = 120.0
#: A guest that waits for its disk looks hung, and may give the disk up: it should learn that it cannot be read.
PATIENCE = 60.0
#: nbdkit waits for clients to go, and there is nothing to wait for.
_END_SECONDS = 0.5
PLUGIN = Path(__file__).with_name("nbdplugin.py")
_PACKAGES = "nbdkit and nbdkit-plugin-python (Debian's names)"
_IDENTITY = (membership.PATH, membership.TOKEN, membership.FINGERPRINT)
#: Lines of nbdkit's that are kept to tell why it failed.
_LINES = 20


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot in an open repository. ``url`` is the repository's; ``cache`` as for its index. Hold a lease
    (``lease.reading_snapshot``) for as long as it is served. ``patience``: a read that the store has not answered for
    so many seconds fails."""

    repo: Repository
    url: str
    manifest: Manifest
    cache: Path | None = None
    patience: float = PATIENCE


class Serving:
    """A context manager: inside, the disks can be opened by their names, by any number of clients at once."""

    def __init__(self, source: Source, disks: Sequence[str], place: Place, *, scratch: Path | None = None) -> None:
        """``disks`` of the snapshot, by name. ``scratch``: a directory; clients may write, into a file there without a
        name, and all of it is gone when this ends. That works with one disk alone (``ValueError``).

        Raises ``Unsupported`` when nbdkit or its plugin is missing, ``TargetRefused`` when it cannot listen, and what
        ``place.prepare`` and opening the repository raise. From any thread.
        """
        if scratch is not None and len(disks) != 1:
            raise ValueError("the filter for writes holds one disk")
        version = _check_nbdkit()
        place.prepare()
        self.place = place
        self.uris: Mapping[str, str] = {name: place.uri(name) for name in disks}
        filters = [] if scratch is None else ["--filter", "cow"]
        command = ["nbdkit", "--foreground", "--newstyle", *_threads(version), *filters, *place.arguments()]
        self._process = subprocess.Popen(
            [*command, "python", str(PLUGIN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(scratch),
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )
        self._heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._ears = threading.Thread(target=self._listen, name="nbdkit", daemon=True)
        self._ears.start()
        self._listening = False
        try:
            self._begin(
                Offer(
                    source.url,
                    source.repo.secrets,
                    source.cache,
                    source.manifest,
                    tuple(disks),
                    source.patience,
                    tuple(place.leavings()),
                )
            )
        except BaseException:
            self.close()
            raise

    def _begin(self, offered: Offer) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and the reason is being told
            stdin.write(offered.encode())
            stdin.flush()
        try:
            what, text = self._heard.get(timeout=START_SECONDS)
        except queue.Empty:
            raise errors.Unreachable(f"nbdkit does not answer within {START_SECONDS:.0f} s.") from None
        if what == offer.FAILED:
            raise offer.failed(text)
        if what == _ENDED:
            raise errors.TargetRefused(f"nbdkit cannot serve here: {self._last_words()}")
        self._listening = True

    def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        for line in _lines_of(stderr):
            heard = offer.heard(line)
            if heard is None:
                self._lines.append(line)
                _log.info("nbdkit: %s", plain.line(line))
            elif heard[0] == offer.WARNING:
                _log.warning("%s", plain.line(heard[1]))
            else:
                self._heard.put(heard)
        self._heard.put((_ENDED, ""))

    @property
    def process_id(self) -> int:
        return self._process.pid

    def wait(self, seconds: float | None = None) -> None:
        """Until it ends without having been told to, which raises ``Unreachable``; at most for these seconds."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise errors.Unreachable(f"nbdkit ended by itself, with status {status}: {self._last_words()}")

    def _last_words(self) -> str:
        self._ears.join(children.END_SECONDS)
        return plain.joined(" ".join(self._lines)) or "it does not say why"

    def close(self) -> None:
        children.end(self._process, _END_SECONDS)
        self._ears.join()
        for pipe in (self._process.stdin, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of an offer that it did not live to read
                pipe.close()
        if self._listening:  # else what is there is another one's
            for path in self.place.leavings():
                path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


_ENDED = "ended"


def _lines_of(stderr: IO[bytes]) -> Iterator[str]:
    for line in stderr:
        yield line.decode(errors="replace").rstrip()


def _environment(scratch: Path | None) -> dict[str, str]:
    """Ours, with the way to our packages, and who we are at a server; without passwords, which it does not need, and
    what is for our Python."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _IDENTITY or not name.startswith(("HEADSTART_", "PYTHON"))
    }
    kept["PYTHONPATH"] = os.pathsep.join(_packages())
    if scratch is not None:
        kept["TMPDIR"] = str(scratch)
    return kept


def _packages() -> list[str]:
    """Where modules are found, without the standard library: nbdkit's Python has its own."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return [path for path in sys.path if path and path not in own and Path(path).name != "lib-dynload"]


def _check_nbdkit() -> list[int]:
    """Whether it is there, with a Python that can load the same packages; its version."""
    try:
        told = subprocess.run(
            ["nbdkit", "python", "--dump-plugin"], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError as error:
        raise errors.Unsupported(f"nbdkit cannot be started ({error.strerror}): install {_PACKAGES}.") from error
    if told.returncode != 0:
        raise errors.Unsupported(f"nbdkit has no plugin for Python: install {_PACKAGES}.")
    facts = dict(line.partition("=")[::2] for line in told.stdout.splitlines())
    theirs = facts.get("python_version", "").split(".")[:2]
    ours = [str(part) for part in sys.version_info[:2]]
    if theirs != ours:
        raise errors.Unsupported(
            f"nbdkit's plugin is for Python {'.'.join(theirs) or 'of an unknown version'}, and Headstart runs with "
            f"Python {'.'.join(ours)}: install Headstart with the Python that the distribution's nbdkit is made for."
        )
    return [int(part) for part in facts.get("version", "").split(".") if part.isdecimal()]


def _threads(version: list[int]) -> Sequence[str]:
    """nbdkit 1.32.4 to 1.33.9 aborts if a client goes away while several threads work for it ("server: Don't assert on
    send if client hangs up early", nbdkit's 9d82aa4f), which would take the disk from all others: one for each then."""
    return ["--threads", "1"] if [1, 32, 4] <= version < [1, 33, 10] else []
