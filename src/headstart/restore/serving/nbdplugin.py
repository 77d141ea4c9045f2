"""A plugin of nbdkit: disks of a snapshot, each an export of its name. It runs within nbdkit, and nowhere else.

nbdkit calls the functions by their names, from many threads (nbdkit-python-plugin(3)).
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import nbdkit

from headstart import errors, units
from headstart.repository import Repository
from headstart.restore.serving import offer
from headstart.restore.serving.pool import Pool
from headstart.restore.serving.view import CACHE, DiskView

API_VERSION = 2
#: What cannot be read is told of once in so many seconds: clients try again and again.
_SILENT_SECONDS = 60.0
_MOST_TOLD = 1000
#: Zeroes and data in one answer, at most.
_MOST_EXTENTS = 4096

#: Of its own: nbdkit closes standard input before it serves.
_stdin = os.dup(0)
_repo: Repository | None = None
_leavings: tuple[Path, ...] = ()
_views: dict[str, DiskView] = {}
_told: dict[tuple[str, str], float] = {}


def _say(what: str, text: str = "") -> None:
    os.write(2, offer.say(what, text))


def config_complete() -> None:
    """nbdkit ends if this raises."""
    global _repo, _leavings
    try:
        with os.fdopen(os.dup(_stdin), "rb") as stdin:
            given = offer.Offer.decode(stdin.readline())
        _leavings = given.leavings
        _repo, disks = given.open()
        _repo.holdings.refresh()
    except errors.HeadstartError as error:
        _say(offer.FAILED, offer.failure(error))
        raise
    pool = Pool(_repo, CACHE)
    _views.update((disk.name, DiskView(_repo, disk, pool)) for disk in disks)


def after_fork() -> None:
    """It is listening."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _say(offer.READY)


def _end_with_parent() -> None:
    """Whoever started us holds the other end of the pipe, and says nothing more."""
    os.read(_stdin, 1)
    for path in _leavings:
        path.unlink(missing_ok=True)
    os._exit(1)


def thread_model() -> int:
    model: int = nbdkit.THREAD_MODEL_PARALLEL
    return model


def list_exports(readonly: bool, is_tls: bool) -> Iterable[tuple[str, str]]:
    return [(name, units.format_bytes(view.size)) for name, view in _views.items()]


def default_export(readonly: bool, is_tls: bool) -> str:
    """Of a client that names none: that one, where there is one alone."""
    return next(iter(_views)) if len(_views) == 1 else ""


def open(readonly: bool) -> DiskView:  # noqa: A001
    name = nbdkit.export_name() or default_export(readonly, False)
    if name not in _views:
        nbdkit.set_error(errno.ENOENT)
        raise LookupError(f"there is no disk {name!r}; there are: {', '.join(_views)}")
    return _views[name]


def get_size(view: DiskView) -> int:
    return view.size


def block_size(view: DiskView) -> tuple[int, int, int]:
    """Least, preferred and most bytes of a request."""
    return 1, view.disk.block_size, 32 * units.MIB


def can_write(view: DiskView) -> bool:
    return False


def can_multi_conn(view: DiskView) -> bool:
    """All clients see the same, as nobody writes; with the filter for writes it knows by itself."""
    return True


def can_extents(view: DiskView) -> bool:
    return True


def can_cache(view: DiskView) -> int:
    """A request to prefetch is one to read."""
    emulated: int = nbdkit.CACHE_EMULATE
    return emulated


def pread(view: DiskView, buffer: memoryview, offset: int, flags: int) -> None:
    try:
        view.read_into(buffer, offset)
    except errors.HeadstartError as error:
        raise _failed(view, offset, len(buffer), error) from None


def extents(view: DiskView, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    zeroes = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO
    try:
        for piece in view.pieces(offset, count):
            found.append((piece.extent.start, piece.extent.length, 0 if piece.data else zeroes))
            if len(found) == _MOST_EXTENTS or flags & nbdkit.FLAG_REQ_ONE:
                break
    except errors.HeadstartError as error:
        if not found:
            raise _failed(view, offset, count, error) from None
    return found


def _failed(view: DiskView, offset: int, length: int, error: errors.HeadstartError) -> OSError:
    """Told to us once, and to the client as an I/O error, each time."""
    nbdkit.set_error(errno.EIO)
    end = offset + length - 1
    key, now = (view.disk.name, str(error)), time.monotonic()
    if now - _told.get(key, -_SILENT_SECONDS) >= _SILENT_SECONDS:
        if len(_told) >= _MOST_TOLD:
            _told.clear()
        _told[key] = now
        told = str(error) if "start" in error.facts else f"Disk {view.disk.name}, bytes {offset} to {end}: {error}"
        _say(offer.WARNING, f"An I/O error was given to a client. {told}")
    return OSError(errno.EIO, "Input/output error")
