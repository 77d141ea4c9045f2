"""Reading back what is stored, and comparing it with its digests: no content is opened.

A pack that was never read is, and then again when so many days are over; all other objects are looked at each time. A
snapshot counts as verified when everything that it needs was read within those days, and was whole.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from headstart.batches import batched
from headstart.repository import census, layout, snapshot, verify
from headstart.repository.selection import DAY
from headstart.repository.verify import Report
from headstart.server import events, structure, tables
from headstart.server.call import Call
from headstart.server.jobs import Job
from headstart.server.principal import Principal
from headstart.server.repositories import Place
from headstart.server.roles import Role
from headstart.server.site import Site
from headstart.server.work.contract import Beat, place_of

#: How old a reading may be.
DAYS = 28
_IDS = 1 << 128
_BATCH, _TOLD = 500, 100


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """``everything``: also what was read lately."""
    place = place_of(site, job)
    begun = site.clock()
    with structure.open_repository(site, place, beat) as repo:
        ids = [each.id for each in snapshot.all_manifests(repo).manifests]
        days = 0.0 if job.arguments.get("everything") and job.attempts == 1 else DAYS
        aged = Aged(site, place, begun, days)
        try:
            done = verify.verify_all(repo, _Progress(beat), census.NOTHING, aged)
        finally:
            aged.flush()
    touched = {touched.snapshot for finding in done.findings for touched in finding.touched}
    touched |= {each for finding in done.findings if (each := _unread(finding.object)) and each not in ids}
    _note(site, place, [each for each in ids if each not in touched], {"verified": begun, "damaged": None})
    since = func.coalesce(tables.snapshots.c.damaged, begun)
    _note(site, place, touched, {"verified": None, "damaged": since})
    told = _told(done)
    if done.findings:
        _alarm(site, job, told)
    return told


def _unread(name: str) -> str | None:
    """Which snapshot it is of, if it is a manifest or the twin of one."""
    folder, _, snapshot_id = name.rpartition("/")
    return snapshot_id if f"{folder}/" in (layout.SNAPSHOTS, layout.TWINS) else None


class _Progress:
    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def __call__(self, done: int, total: int) -> None:
        self._beat("verifying", done, total)


class Aged:
    """Packs that were not read within ``days``. Those of one age come at different times, each by its random id."""

    def __init__(self, site: Site, place: Place, now: float, days: float) -> None:
        self._site = site
        self._place = place
        self._now = now
        self._days = days
        self._passed: list[str] = []
        self._lock = threading.Lock()

    def of(self, packs: Collection[bytes]) -> set[bytes]:
        known = self._known()
        here = {pack.hex() for pack in packs}
        due = {pack for pack in packs if self._is_due(pack, known.get(pack.hex()))}
        # What is read now counts as read when it has passed: where it is damaged, the next job looks again.
        self._forget([pack for pack in known if pack not in here or bytes.fromhex(pack) in due])
        return due

    def _is_due(self, pack: bytes, read: float | None) -> bool:
        if read is None or read > self._now:
            return True
        part = 0.5 + int.from_bytes(pack, "big") / _IDS / 2
        return self._now - read >= part * self._days * DAY

    def passed(self, pack_id: bytes) -> None:
        with self._lock:
            self._passed.append(pack_id.hex())
            full = len(self._passed) >= _BATCH
        if full:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            passed, self._passed = self._passed, []
        its = tables.packs_read.c
        with self._site.database.write() as connection:
            for batch in batched(sorted(set(passed)), _BATCH):
                mine = (its.repository == self._place.id, its.pack.in_(batch))
                connection.execute(delete(tables.packs_read).where(*mine))
                rows = [{"repository": self._place.id, "pack": pack, "moment": self._now} for pack in batch]
                connection.execute(insert(tables.packs_read), rows)

    def _known(self) -> dict[str, float]:
        its = tables.packs_read.c
        with self._site.database.read() as connection:
            query = select(its.pack, its.moment).where(its.repository == self._place.id)
            return {row.pack: row.moment for row in connection.execute(query)}

    def _forget(self, packs: Iterable[str]) -> None:
        its = tables.packs_read.c
        with self._site.database.write() as connection:
            for batch in batched(packs, _BATCH):
                mine = (its.repository == self._place.id, its.pack.in_(batch))
                connection.execute(delete(tables.packs_read).where(*mine))


def _note(site: Site, place: Place, ids: Iterable[str], values: Mapping[str, Any]) -> None:
    its = tables.snapshots.c
    with site.database.write() as connection:
        for batch in batched(ids, _BATCH):
            mine = (its.tenant == place.tenant, its.repository == place.id, its.id.in_(batch))
            connection.execute(update(tables.snapshots).where(*mine).values(values))


def _told(done: Report) -> dict[str, Any]:
    findings = [
        {
            "object": each.object,
            "message": each.message,
            "snapshots": sorted({touched.snapshot for touched in each.touched})[:_TOLD],
        }
        for each in done.findings[:_TOLD]
    ]
    counts = {"snapshots": done.snapshots, "chunks": done.chunks, "bytes": done.bytes, "packs": done.packs}
    return {**counts, "packs_there": done.packs_there, "damaged": len(done.findings), "findings": findings}


def _alarm(site: Site, job: Job, told: dict[str, Any]) -> None:
    """Also where it came by itself."""
    who = Principal("", job.actor, Role.SITE, job.tenant)
    objects = [each["object"] for each in told["findings"]]
    facts = {"job": job.id, "repository": job.repository, "damaged": told["damaged"], "objects": objects}
    with site.database.write() as connection:
        events.note(connection, Call(who, site.clock()), "repository.damaged", None, facts)
