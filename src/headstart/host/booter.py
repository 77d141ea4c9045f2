"""Boots by order of the server: a snapshot runs on this host, apart from everything, until somebody ends it.

::

    served over NBD  ->  booted, without a network  ->  told how it is reached  ->  ended, and thrown away

What the guest writes is gone with it. If this process is killed the VM ends, too; the next one clears up after it.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.host import log
from headstart.host.house import House
from headstart.repository import lease, snapshot
from headstart.restore.booting import boot, runplace
from headstart.restore.booting.attendance import Attendance, Running
from headstart.restore.booting.boot import Wanted
from headstart.restore.order import file_name
from headstart.restore.rehearsing.rehearsal import LIBVIRT
from headstart.restore.serving.serving import Serving, Source

#: A forgotten one must not run for ever.
MOST_HOURS = 7 * 24.0
_HOUR = 3600.0
#: In the scratch directory: one folder for each VM that runs by order.
_FOLDER = "ordered"
_RUNS = "runs"
_POWERED_OFF = "It was powered off."
_OVER = "Its time was over."
_NOT_OFFERED = "The owner of the host does not offer it any longer."

Tell = Callable[[Mapping[str, Any]], None]


class Ending:
    """What ends a VM that runs by order. For any thread."""

    def __init__(self) -> None:
        self.reason = ""

    def ask(self, reason: str) -> None:
        """The first reason counts."""
        self.reason = self.reason or reason


@dataclass(frozen=True, slots=True)
class _Up:
    """Before its guest runs. ``reach``: how somebody at this host comes to its screen and consoles; ``failure``: why
    QEMU ended, if that was not the guest's own wish."""

    instance: Running
    served: Serving
    consoles: tuple[Path, ...]
    reach: Mapping[str, Any]
    notes: tuple[str, ...]
    failure: Callable[[], str]


class Booter:
    """For any thread. ``offered``: whether the owner of the host still wants it."""

    def __init__(self, house: House, offered: Callable[[], bool]) -> None:
        self._house = house
        self._offered = offered
        #: Each is a whole VM beside those of this host.
        self._one = threading.Lock()

    def boot(self, snapshot_id: str, hours: float, ending: Ending, tell: Tell) -> dict[str, Any]:
        """Until it has ended, and why. Raises ``Busy`` beside another one, ``Usage`` for hours that cannot be, what
        opening the repository and ``boot.booted`` do."""
        if not math.isfinite(hours) or not 0 < hours <= MOST_HOURS:
            raise errors.Usage(f"A VM runs by order for {MOST_HOURS:.0f} hours at most, and not for {hours}.")
        if not self._one.acquire(blocking=False):
            raise errors.Busy("This host runs another restore point by order, and one at a time: stop that one first.")
        try:
            with self._house.vault.another() as repo:
                manifest = snapshot.load(repo, snapshot_id)
                source = Source(repo, self._house.vault.address, manifest, self._house.vault.cache)
                with lease.reading_snapshot(repo, "boot", manifest):
                    return self._attended(source, hours * _HOUR, ending, tell)
        finally:
            self._remove_folder()
            self._one.release()

    def clear(self) -> None:
        """Away with what is left of a VM of which this process was killed; it has ended with that."""
        if not self._one.acquire(blocking=False):
            return
        try:
            runplace.clear((self._house.scratch / _FOLDER).glob("*"))
            self._remove_folder()
        finally:
            self._one.release()

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):  # not empty, or not there
            (self._house.scratch / _FOLDER).rmdir()

    def _attended(self, source: Source, seconds: float, ending: Ending, tell: Tell) -> dict[str, Any]:
        manifest, wanted = source.manifest, self._wanted(source.manifest.vm)
        with _started(source, wanted, self._uri(manifest.vm)) as up:
            attendance, begun = Attendance(up.instance, up.served, up.consoles), time.monotonic()
            up.instance.resume()
            log.decision(manifest.vm, event="booted", snapshot=manifest.id, name=wanted.name)
            facts = {"until": self._house.clock() + seconds, "name": wanted.name, "reach": up.reach}

            def over() -> bool:
                tell({"what": attendance.trouble or _RUNS, **facts, "notes": list(up.notes)})
                if time.monotonic() - begun > seconds:
                    ending.ask(_OVER)
                if not self._offered():
                    ending.ask(_NOT_OFFERED)
                return bool(ending.reason)

            attendance.until_the_end(over)
            if not ending.reason and (failure := up.failure()):
                raise errors.Unreachable(f"QEMU ended: {failure}")
        return {"snapshot": manifest.id, "ended": ending.reason or _POWERED_OFF, "seconds": time.monotonic() - begun}

    def _wanted(self, vm: str) -> Wanted:
        """By a name of the VM's, so that what is left of it is found again."""
        name = f"ordered-{file_name(vm)[:40]}"
        return Wanted(name, runplace.folder_of(name, os.environ), self._house.scratch / _FOLDER / name)

    def _uri(self, vm: str) -> str:
        """A domain is started where it is at home."""
        found = (each.domain.uri for each in self._house.journal.vms() if each.name == vm and each.domain is not None)
        return next(found, LIBVIRT)


@contextlib.contextmanager
def _started(source: Source, wanted: Wanted, uri: str) -> Iterator[_Up]:
    if boot.is_domain(boot.definition_of(source.repo, source.manifest)):
        # Of no use to those who have no libvirt.
        from headstart.restore.booting import domainboot

        with domainboot.booted(source, wanted, uri) as domain:
            reach = {"libvirt": uri, "domain": wanted.name, "consoles": _told(domain.consoles)}
            yield _Up(domain.instance, domain.served, domain.consoles, reach, domain.notes, lambda: "")
        return
    with boot.booted(source, wanted) as booted:
        derived, instance = booted.derived, booted.instance
        reached: dict[str, Any] = {
            "pid": instance.pid,
            "monitor": str(derived.monitor),
            "screen": str(derived.screen) if derived.screen else None,
            "consoles": _told(derived.consoles),
            "qga": str(derived.qga) if derived.qga else None,
            "sockets": {name: str(path) for name, path in derived.sockets.items()},
        }
        yield _Up(instance, booted.served, derived.consoles, reached, booted.notes, lambda: instance.failure)


def _told(paths: tuple[Path, ...]) -> list[str]:
    return [str(each) for each in paths]
