"""Offering the disks of a snapshot over NBD, for as long as needed: nbdkit, as a child that ends with us.

::

    Serving  --- an offer --->  nbdkit [filter cow] python nbdplugin.py  --->  DiskView of each disk  --->  store
                                  |
    any client of NBD  <----------+   unix socket or TCP; the disk's name is the export's

The child opens the repository once more: nothing that clients do can hold up or spoil what this process does.
"""

from __future__ import annotations

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
from typing import IO, Protocol, Self

from headstart import errors, plain
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore import offer
from headstart.restore.offer import Offer
from headstart.wire import children
from headstart.wire.nbd import Export

_log = logging.getLogger(__name__)

#: Opening a repository far away, and loading its index.
START_SECONDS = 120.0
PLUGIN = Path(__file__).with_name("nbdplugin.py")
_PACKAGES = "nbdkit and nbdkit-plugin-python (Debian's names)"
#: Lines of nbdkit's that are kept to tell why it failed.
_LINES = 20


@dataclass(frozen=True, slots=True)
class Source:
    """A snapshot in an open repository. ``url`` is the repository's; ``cache`` as for its index. Hold a lease
    (``lease.reading_snapshot``) for as long as it is served."""

    repo: Repository
    url: str
    manifest: Manifest
    cache: Path | None = None


class Place(Protocol):
    """Where clients connect."""

    def arguments(self) -> Sequence[str]:
        """For nbdkit."""

    def uri(self, disk: str) -> str: ...

    def clear(self) -> None:
        """Remove what nbdkit may have left there."""


@dataclass(frozen=True, slots=True)
class Unix:
    """A socket that is made, for this user alone."""

    socket: Path

    def arguments(self) -> Sequence[str]:
        return ["--unix", str(self.socket)]

    def export(self, disk: str) -> Export:
        return Export(self.socket, disk)

    def uri(self, disk: str) -> str:
        return self.export(disk).uri

    def clear(self) -> None:
        self.socket.unlink(missing_ok=True)


class Serving:
    """A context manager: inside, the disks can be opened by their names, by any number of clients at once."""

    def __init__(self, source: Source, disks: Sequence[str], place: Place, *, scratch: Path | None = None) -> None:
        """``disks`` of the snapshot, by name. ``scratch``: a directory; clients may write, into a file there without a
        name, and all of it is gone when this ends. That works with one disk alone (``ValueError``).

        Raises ``Unsupported`` when nbdkit or its plugin is missing, ``Unreachable`` when it cannot listen, and what
        opening the repository raises. From any thread.
        """
        if scratch is not None and len(disks) != 1:
            raise ValueError("the filter for writes holds one disk")
        _check_nbdkit()
        self.place = place
        self.uris: Mapping[str, str] = {name: place.uri(name) for name in disks}
        filters = [] if scratch is None else ["--filter", "cow"]
        command = ["nbdkit", "--foreground", "--newstyle", *filters, *place.arguments(), "python", str(PLUGIN)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(scratch),
            umask=0o077,
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )
        self._heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._ears = threading.Thread(target=self._listen, name="nbdkit", daemon=True)
        self._ears.start()
        try:
            self._begin(Offer(source.url, source.repo.secrets, source.cache, source.manifest, tuple(disks)))
        except BaseException:
            self.close()
            raise

    def _begin(self, offered: Offer) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(offered.encode())
            stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and the reason is being told
        try:
            what, text = self._heard.get(timeout=START_SECONDS)
        except queue.Empty:
            raise errors.Unreachable(f"nbdkit does not answer within {START_SECONDS:.0f} s.") from None
        if what == offer.FAILED:
            raise offer.failed(text)
        if what == _ENDED:
            raise errors.Unreachable(f"nbdkit cannot serve: {self._last_words()}")

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
        children.end(self._process)
        self._ears.join()
        for pipe in (self._process.stdin, self._process.stderr):
            assert pipe is not None
            pipe.close()
        self.place.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


_ENDED = "ended"


def _lines_of(stderr: IO[bytes]) -> Iterator[str]:
    for line in stderr:
        yield line.decode(errors="replace").rstrip()


def _environment(scratch: Path | None) -> dict[str, str]:
    """Ours, with the way to our packages; without passwords, which it does not need."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADSTART_")}
    kept["PYTHONPATH"] = os.pathsep.join(_packages())
    if scratch is not None:
        kept["TMPDIR"] = str(scratch)
    return kept


def _packages() -> list[str]:
    """Where modules are found, without the standard library: nbdkit's Python has its own."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return [path for path in sys.path if path and path not in own and Path(path).name != "lib-dynload"]


def _check_nbdkit() -> None:
    """Whether it is there, with a Python that can load the same packages."""
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
