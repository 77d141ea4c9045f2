"""A second site: the repository's objects as they are, sealed, under the same names.

To store snapshots anew under other keys takes their content, which the server cannot open. A mirror takes no key at
all: the second site is the same repository, opens with the same passwords, and is gone on with if the first is lost.

::

    keys, config  ->  packs, indexes, losses  ->  labels, proofs  ->  manifests  ->  their twins

So a snapshot is there only when all that it needs is: as when it was published. Whatever is there already, with the
same length, is not sent again, so an interrupted copy goes on. What was sent is read back, and its digest compared.
What is gone from the first site stays at the second, unless the job is to ``prune``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from headstart import errors
from headstart.repository import layout
from headstart.server import repositories, site
from headstart.server.jobs import Job
from headstart.server.repositories import Place
from headstart.server.site import Site
from headstart.server.tended import Tended
from headstart.server.work.contract import Beat, place_of
from headstart.store.contract import Exists, Missing, Store

#: Objects on their way at a time: each is in memory as a whole, twice.
_WINDOW = 4
#: A collector of garbage may take packs away, time and again, while they are copied.
_ROUNDS = 10

_FIRST = (layout.KEYS, layout.CONFIG_KEY, layout.CONFIG_TWIN)
_NEEDED = (layout.PACKS, layout.INDEXES)
_BESIDE = (layout.LOSSES, layout.EVIDENCE, layout.PROOFS, layout.LABELS)
_LAST = (layout.SNAPSHOTS, layout.TWINS)


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """``repository``: another one of the tenant's, which is empty or such a mirror; without, the second site of the
    server. ``everything``: compare also what is there already. Raises ``TargetRefused``, ``Usage``, ``NoSpace``."""
    place = place_of(site, job)
    target = _target(site, job, place, beat)
    mirror = Mirror(place.store(site), target, beat, everything=bool(job.arguments.get("everything")))
    mirror.run()
    removed = mirror.prune() if job.arguments.get("prune") else 0
    done = mirror.done
    return {"objects": done.objects, "bytes": done.bytes, "there": done.there, "removed": removed}


def _target(opened: Site, job: Job, place: Place, beat: Beat) -> Store:
    wanted = job.arguments.get("repository")
    if wanted:
        with opened.database.read() as connection:
            other = repositories.named(connection, place.tenant, str(wanted))
        if other is None or other.id == place.id:
            raise errors.NotFound(f"There is no other repository {wanted!r} here.")
        return Tended(opened, other, beat, reserves=True)
    if opened.settings.second_store is None:
        raise errors.Usage("The server has no second site. Name a repository, or start the server with --second-store.")
    url = "/".join([opened.settings.second_store.rstrip("/"), place.tenant, place.id])
    return opened.open_store(url, site.PATIENCE)


@dataclass(slots=True)
class _Done:
    objects: int = 0
    bytes: int = 0
    there: int = 0


class Mirror:
    """Of one store to another one: ``run``, then ``prune`` if what is gone from the first is to go from the second."""

    def __init__(self, source: Store, target: Store, beat: Beat, *, everything: bool) -> None:
        self._source = source
        self._target = target
        self._beat = beat
        self._everything = everything
        self._total = 0
        #: Packs and indexes that the snapshots copied need: a collector may have put others in their place since.
        self._kept: set[str] = set()
        self.done = _Done()

    def run(self) -> None:
        self._check()
        for prefix in _FIRST:
            self._copy(prefix, self._listed(self._source, prefix))
        snapshots = self._needed()
        for prefix in _BESIDE:
            self._copy(prefix, self._listed(self._source, prefix))
        for prefix in _LAST:
            listed = self._listed(self._source, prefix)
            self._copy(prefix, {key: size for key, size in listed.items() if key.rpartition("/")[2] in snapshots})

    def prune(self) -> int:
        """Snapshots first, what they needed last: killed anywhere, it is repeated."""
        removed = 0
        for prefix in (*reversed(_LAST), *_BESIDE, *reversed(_NEEDED), layout.KEYS):
            there, here = self._listed(self._target, prefix), self._listed(self._source, prefix)
            for key in sorted(there.keys() - here.keys() - self._kept):
                if key != layout.CONFIG_TWIN:
                    self._beat("pruning", removed)
                    self._target.delete(key)
                    removed += 1
        return removed

    def _needed(self) -> set[str]:
        """All packs and indexes; the snapshots that need no others. Whatever was published before the packs were listed
        needs what was listed, unless a collector took some of it away before it was copied, or while the list was
        made: then that may lack also what was put in its place."""
        before = self._keys()
        for _ in range(_ROUNDS):
            snapshots = {key.rpartition("/")[2] for key in self._listed(self._source, layout.SNAPSHOTS)}
            listed = {prefix: self._listed(self._source, prefix) for prefix in _NEEDED}
            self._total += sum(sum(sizes.values()) for sizes in listed.values())
            for prefix, sizes in listed.items():
                self._copy(prefix, sizes)
            self._kept = {key for sizes in listed.values() for key in sizes}
            after = self._keys()
            if before <= self._kept <= after:
                return snapshots
            before = after
        raise errors.Busy("Garbage is collected in the repository all the time. Copy it later.")

    def _keys(self) -> set[str]:
        return {key for prefix in _NEEDED for key in self._listed(self._source, prefix)}

    def _check(self) -> None:
        try:
            config = self._source.read(layout.CONFIG_KEY)
        except Missing as error:
            raise errors.NoRepository("There is nothing to copy yet: no host has made its repository here.") from error
        try:
            same = self._target.read(layout.CONFIG_KEY) == config
        except Missing:
            # Of a copy that came no further than the keys.
            same = not [key for key, _ in self._target.list("") if not key.startswith(layout.KEYS)]
        if not same:
            raise errors.TargetRefused(f"{self._target!r} holds something else. Name a place that is empty.")

    def _listed(self, store: Store, prefix: str) -> dict[str, int]:
        return dict(store.list(prefix))

    def _copy(self, prefix: str, wanted: dict[str, int]) -> None:
        there = self._listed(self._target, prefix)
        for key, size in wanted.items():
            if there.get(key, size) != size:
                raise errors.Damaged(f"{key} is damaged at the second site: it has another length.", object=key)
        lacking = [key for key in sorted(wanted) if self._everything or key not in there]
        self.done.there += len(wanted) - len([key for key in lacking if key not in there])
        with ThreadPoolExecutor(_WINDOW) as threads:
            try:
                self._count(threads.map(self._send, lacking))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _count(self, sent: Iterable[int | None]) -> None:
        for size in sent:
            if size is not None:
                self.done.objects += 1
                self.done.bytes += size
            self._beat("copying", self.done.bytes, self._total)

    def _send(self, key: str) -> int | None:
        """Its size; None where it was there, or is gone from the source."""
        self._beat()
        try:
            data = self._source.read(key)
        except Missing:
            return None
        new = False
        with contextlib.suppress(Exists):
            self._target.create(key, data)
            new = True
        if hashlib.sha256(self._target.read(key)).digest() != hashlib.sha256(data).digest():
            raise errors.Damaged(f"{key} at the second site is not what was sent.", object=key)
        return len(data) if new else None
