"""A point in time of a domain: a pull-mode job over all of its disks.

::

    checkpoints begin   older bitmaps read   freeze   job begins   thaw   newest bitmap read   ...   job ends
    -----------------------------------------|========================================================|------
                                                            window

A job tells one bitmap of each disk, and there is one job at a time. So all but the newest bitmap are read by jobs of
their own just before; what was written since then is in the newest, which began earlier and is read at the point::

    older    ..............|read
    newest         ................................|read at the point
    older, at the point = what was read of it  +  newest
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import PointRequest, Protects, of_disk
from headstart.hypervisor.freeze import Freezer, Guarding, frozen
from headstart.hypervisor.libvirt.checkpoints import Checkpoints
from headstart.hypervisor.libvirt.inventory import Look
from headstart.hypervisor.libvirt.jobs import Job, Jobs, Part
from headstart.wire import nbd


class LibvirtPoint:
    """``headstart.hypervisor.contract.PointInTime``; protects everything until it is released."""

    protects = Protects.ALL

    def __init__(
        self,
        seen: Look,
        request: PointRequest,
        checkpoints: Checkpoints,
        jobs: Jobs,
        guarding: Guarding,
        freezer: Freezer | None,
        block_size: int,
    ) -> None:
        self._seen = seen
        self._jobs = jobs
        self._block_size = block_size
        self._clients: dict[str, nbd.Client] = {}
        self._stack = contextlib.ExitStack()
        self._job: Job | None = None
        self.pause_seconds = 0.0
        self.notes: list[str] = []
        try:
            checkpoints.transact(seen, request.starts)
            earlier = {disk: list(names[:-1]) for disk, names in request.reads.items()}
            self._told = checkpoints.recorded(seen, earlier)
            with frozen(guarding, freezer, self.notes) as outcome:
                self._job = self._begin(request)
            self.consistency, self.freeze_seconds = outcome.consistency, outcome.freeze_seconds
            self._began = outcome.began
            self._offer()
            self._learn(request.reads)
        except BaseException:
            self._withdraw()
            raise

    def _begin(self, request: PointRequest) -> Job:
        parts = [
            Part(each.disk.name, each.disk.size, next(iter(request.reads.get(each.disk.name, ())[-1:]), None))
            for each in self._seen.attachments
        ]
        return self._jobs.begin(self._seen.targets, parts, request.reserve)

    def _offer(self) -> None:
        assert self._job is not None
        for each in self._seen.attachments:
            self._clients[each.disk.name] = self._stack.enter_context(self._job.client(each.disk.name))

    def _learn(self, reads: Mapping[str, Sequence[str]]) -> None:
        assert self._job is not None
        for disk, names in reads.items():
            newest = self._job.recorded(disk, self._block_size)
            older = {name: found | newest for name, found in self._told[disk].items()}
            self._told[disk] = {**older, names[-1]: newest}

    def recorded(self) -> dict[str, dict[str, Blocks]]:
        return self._told

    def reader(self, disk: str) -> nbd.Client:
        return of_disk(self._clients, disk)

    def protected(self, disk: str) -> Blocks | None:
        return None

    def keep(self, disk: str, wanted: Blocks) -> None:
        """A job of libvirt's cannot be told to protect less."""

    def uri(self, disk: str) -> str:
        assert self._job is not None
        return self._job.export(disk).uri

    def check(self) -> None:
        assert self._job is not None
        self._job.check()

    def release(self) -> float:
        self._stack.close()
        self._jobs.end()
        self._job = None
        return time.monotonic() - self._began

    def _withdraw(self) -> None:
        """Best effort: what cannot be taken away now, the watch ends when we go, or the next contact."""
        with contextlib.suppress(errors.HeadstartError):
            self._stack.close()
        if self._job is not None:
            with contextlib.suppress(errors.HeadstartError):
                self._jobs.end()
            self._job = None

    def __enter__(self) -> LibvirtPoint:
        return self

    def __exit__(self, *details: object) -> None:
        self._withdraw()
