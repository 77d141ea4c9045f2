"""The journal of a host: what was identified, copied, completed, in the order in which it became true.

Every method that changes something is one SQLite transaction (``Database.change``). A lost or old journal is safe:
marks are named at random, so that an old copy does not find its marks again, and what it does not know is read once
more.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from headstart import errors
from headstart.blocks import Blocks
from headstart.state import holder, noted
from headstart.state.database import Database
from headstart.state.encoding import (
    completion_from_text,
    completion_to_text,
    disk_of_row,
    row_of_disk,
    row_of_vm,
    vm_of_row,
)
from headstart.state.holder import Holder
from headstart.state.runs import GOING, KEPT_SECONDS
from headstart.state.values import AGENT, HOST, Completion, Distrust, Domain, Draft, Point, Tracked, Vm
from headstart.tracking.choice import Wish
from headstart.transfer.pipeline import Stored

#: How long a look at a VM's load may take that somebody else is having.
LOCK_SECONDS = 2.0
#: Blocks of a draft that are in memory at a time, with their chunks: a few MB.
PORTION = 10_000


class Journal(Database):
    """Usable from several threads."""

    # VMs

    def add_vm(self, vm: Vm) -> None:
        with self.change() as database:
            if database.execute("SELECT 1 FROM vms WHERE name = ?", (vm.name,)).fetchone():
                raise errors.Usage(f"There is a VM '{vm.name}' already: 'headstart vm remove {vm.name}' first.")
            _insert(database, "INSERT", "vms", row_of_vm(vm))

    def vms(self) -> list[Vm]:
        return [vm_of_row(row) for row in self.rows("SELECT * FROM vms ORDER BY name")]

    def track(self, name: str, wish: Wish) -> None:
        """From its next contact on."""
        self.vm(name)
        with self.change() as database:
            database.execute("UPDATE vms SET track = ? WHERE name = ?", (wish.value, name))

    def vm(self, name: str) -> Vm:
        rows = self.rows("SELECT * FROM vms WHERE name = ?", name)
        if not rows:
            raise errors.NotFound(f"There is no VM '{name}' here. 'headstart vm list' shows those that are.", vm=name)
        return vm_of_row(rows[0])

    def put_domain(self, name: str, domain: Domain) -> None:
        """It was renamed."""
        with self.change() as database:
            database.execute("UPDATE vms SET uri = ?, domain = ? WHERE name = ?", (domain.uri, domain.name, name))

    def adopt(self, vm: Vm, disks: Iterable[Tracked]) -> None:
        """A VM that goes on from a snapshot, at this place: its marks have recorded all since, and what was known of
        its disks before is forgotten. One of this name keeps its settings."""
        with self.change() as database:
            row = row_of_vm(vm)
            known = database.execute(
                "UPDATE vms SET monitor = :monitor, agent = :agent, qga = :qga, uri = :uri, domain = :domain"
                " WHERE name = :name",
                row,
            )
            if not known.rowcount:
                _insert(database, "INSERT", "vms", row)
            self._forget_draft(database, vm.name)
            for table in ("disks", "keepsakes"):
                database.execute(f"DELETE FROM {table} WHERE vm = ?", (vm.name,))
            for disk in disks:
                self._put_disk(database, vm.name, disk)

    def remove_vm(self, name: str) -> None:
        self.vm(name)
        with self.change() as database:
            database.execute("DELETE FROM vms WHERE name = ?", (name,))
            noted.forget(database, name)

    @contextlib.contextmanager
    def lock(self, vm: str, verb: str = "") -> Iterator[None]:
        """One run at a time works on a VM, of this process or another. Waits for a short look of somebody's; raises
        ``Locked`` that says who holds it, for what (``verb``), since when."""
        if self._directory is None:
            yield
            return

        def refusal(found: Holder) -> errors.Locked:
            return errors.Locked(
                f"Another headstart ({found.process}) works on VM '{vm}'{found.told} Wait until it is done.",
                vm=vm,
                holder=asdict(found),
            )

        with holder.held(self._directory / f"{vm}.lock", verb, LOCK_SECONDS, refusal):
            yield

    # disks and drafts

    def tracked(self, vm: str) -> dict[str, Tracked]:
        return {row[1]: disk_of_row(row) for row in self.rows("SELECT * FROM disks WHERE vm = ?", vm)}

    def draft(self, vm: str) -> Draft | None:
        rows = self.rows("SELECT id, repository, rounds, records, next_rounds, begun FROM drafts WHERE vm = ?", vm)
        if not rows:
            return None
        id_, repository, rounds, records, next_rounds, begun = rows[0]
        return Draft(id_, repository, rounds, records, tuple(json.loads(next_rounds)), begun)

    def begin_round(self, vm: str, draft: Draft, disks: Iterable[Tracked], dropped: Sequence[str]) -> None:
        """Before the marks of the last of ``draft.next_rounds`` are started: what will be true of each disk then.

        ``dropped`` are disks whose part of the draft cannot be believed. A draft with another id than
        the present one replaces it whole, and has no round yet: who copied for the one before comes too late."""
        with self.change() as database:
            present = database.execute("SELECT id FROM drafts WHERE vm = ?", (vm,)).fetchone()
            if present and present[0] != draft.id:
                self._forget_draft(database, vm)
                disks = [replace(disk, round="") for disk in disks]
            for disk in dropped:
                database.execute("DELETE FROM copied WHERE vm = ? AND disk = ?", (vm, disk))
            self._put_draft(database, vm, draft)
            names = [self._put_disk(database, vm, disk) for disk in disks]
            marks = ",".join("?" * len(names))
            for table in ("disks", "copied"):
                database.execute(f"DELETE FROM {table} WHERE vm = ? AND disk NOT IN ({marks})", (vm, *names))

    def end_round(self, vm: str, draft: Draft, disks: Iterable[Tracked], dirty: Mapping[str, Blocks]) -> None:
        """The round is read: ``dirty`` blocks of the draft are stale and leave it."""
        with self.change() as database:
            self._put_draft(database, vm, draft)
            for disk in disks:
                self._put_disk(database, vm, disk)
                self._forget_blocks(database, vm, disk.name, dirty.get(disk.name, ()))

    def put_disk(self, vm: str, disk: Tracked) -> None:
        with self.change() as database:
            self._put_disk(database, vm, disk)

    def _put_draft(self, database: sqlite3.Connection, vm: str, draft: Draft) -> None:
        database.execute(
            "INSERT OR REPLACE INTO drafts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (vm, draft.id, draft.repository, draft.rounds, draft.records, json.dumps(draft.next_rounds), draft.begun),
        )

    def _put_disk(self, database: sqlite3.Connection, vm: str, disk: Tracked) -> str:
        _insert(database, "INSERT OR REPLACE", "disks", row_of_disk(vm, disk))
        return disk.name

    def copied(
        self,
        vm: str,
        round_id: str,
        done: Iterable[Stored],
        packs: Iterable[str] = (),
        delivered: Container[str] = (),
        deliverer: int = HOST,
    ) -> None:
        """Blocks that were read after ``round_id`` began and are durable now. Of the disks ``delivered`` they are the
        guest's word, of all others that of ``deliverer``.

        Answers to an older round are stale and raise ``Locked``: somebody else went on meanwhile."""
        with self.change() as database:
            row = database.execute(
                "SELECT records FROM drafts JOIN disks USING (vm) WHERE vm = ? AND round = ?", (vm, round_id)
            ).fetchone()
            if row is None:
                raise errors.Locked(f"The round {round_id[:8]} of VM '{vm}' is over: its blocks do not count.")
            rows = (
                (vm, each.disk, each.block, each.chunk, row[0], AGENT if each.disk in delivered else deliverer)
                for each in done
            )
            database.executemany("INSERT OR REPLACE INTO copied VALUES (?, ?, ?, ?, ?, ?)", rows)
            database.executemany("INSERT OR IGNORE INTO packs VALUES (?, ?)", ((vm, pack) for pack in packs))

    def copied_blocks(self, vm: str, disk: str) -> Blocks:
        return self._blocks("SELECT block FROM copied WHERE vm = ? AND disk = ?", vm, disk)

    def _blocks(self, query: str, *values: Any) -> Blocks:
        """What a query for block numbers finds. A row at a time: a million of them together take 100 MB."""
        with self.reading(query, *values) as rows:
            return Blocks(array("I", (block for (block,) in rows)))

    def delivered_blocks(self, vm: str, disk: str) -> dict[int, Blocks]:
        """Those of the draft that are somebody else's word, by whose: ``AGENT``, or a number of an appliance."""
        query = "SELECT DISTINCT delivered FROM copied WHERE vm = ? AND disk = ? AND delivered"
        blocks = "SELECT block FROM copied WHERE vm = ? AND disk = ? AND delivered = ?"
        return {whose: self._blocks(blocks, vm, disk, whose) for (whose,) in self.rows(query, vm, disk)}

    def copied_count(self, vm: str, disk: str) -> int:
        rows = self.rows("SELECT count(*) FROM copied WHERE vm = ? AND disk = ?", vm, disk)
        return int(rows[0][0])

    def copied_counts(self, vm: str, disk: str) -> tuple[int, int]:
        """Blocks of the draft, and those of them that are not zeroes."""
        [(count, filled)] = self.rows("SELECT count(*), count(chunk) FROM copied WHERE vm = ? AND disk = ?", vm, disk)
        return int(count), int(filled)

    def disk_count(self) -> int:
        """Disks of all VMs together."""
        return int(self.rows("SELECT count(*) FROM disks")[0][0])

    def copied_chunks(self, vm: str, disk: str) -> Iterator[tuple[int, bytes | None]]:
        """The draft of a disk, ascending; fetched in portions, so that others may write meanwhile."""
        after = -1
        while True:
            rows = self.rows(
                "SELECT block, chunk FROM copied WHERE vm = ? AND disk = ? AND block > ? ORDER BY block LIMIT ?",
                vm,
                disk,
                after,
                PORTION,
            )
            yield from rows
            if not rows:
                return
            after = rows[-1][0]

    def last_copied(self, vm: str, disk: str, count: int) -> Blocks:
        """The last blocks of the draft of a disk that are not zeroes."""
        query = "SELECT block FROM copied WHERE vm = ? AND disk = ? AND chunk IS NOT NULL ORDER BY block DESC LIMIT ?"
        return self._blocks(query, vm, disk, count)

    def chunks_of(self, vm: str, disk: str, wanted: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """The draft's chunks of some blocks; blocks that are not in it are passed over."""
        query = "SELECT chunk FROM copied WHERE vm = ? AND disk = ? AND block = ?"
        for block in wanted:
            for (chunk,) in self.rows(query, vm, disk, block):
                yield block, chunk

    def forget_copied(self, vm: str, disk: str, stale: Iterable[int] | None = None) -> None:
        """These blocks of the draft (all, if none are named) are not believed: they remain to be copied."""
        with self.change() as database:
            if stale is None:
                database.execute("DELETE FROM copied WHERE vm = ? AND disk = ?", (vm, disk))
            else:
                self._forget_blocks(database, vm, disk, stale)

    @staticmethod
    def _forget_blocks(database: sqlite3.Connection, vm: str, disk: str, stale: Iterable[int]) -> None:
        rows = ((vm, disk, block) for block in stale)
        database.executemany("DELETE FROM copied WHERE vm = ? AND disk = ? AND block = ?", rows)

    def unrecorded(self, vm: str, record: int, portion: int = PORTION) -> Iterator[dict[str, list[tuple[int, bytes]]]]:
        """By disk, the chunks of the draft that none of its objects in the repository lists yet; ascending, in portions
        of so many blocks at most."""
        query = (
            "SELECT disk, block, chunk FROM copied WHERE vm = ? AND (disk, block) > (?, ?)"
            " AND record >= ? AND chunk IS NOT NULL ORDER BY disk, block LIMIT ?"
        )
        last = ("", -1)
        while rows := self.rows(query, vm, *last, record, portion):
            found: dict[str, list[tuple[int, bytes]]] = {}
            for disk, block, chunk in rows:
                found.setdefault(disk, []).append((block, chunk))
            last = rows[-1][:2]
            yield found

    def listed(self, vm: str, draft: Draft) -> None:
        """The repository lists the draft's blocks up to now."""
        with self.change() as database:
            self._put_draft(database, vm, draft)

    def packs(self, vm: str) -> list[str]:
        return [row[0] for row in self.rows("SELECT pack FROM packs WHERE vm = ?", vm)]

    def _forget_draft(self, database: sqlite3.Connection, vm: str) -> None:
        for table in ("drafts", "copied", "packs", "completions"):
            database.execute(f"DELETE FROM {table} WHERE vm = ?", (vm,))

    def forget_tracking(self, vm: str) -> None:
        """As if the VM had never been met."""
        with self.change() as database:
            self._forget_draft(database, vm)
            database.execute("DELETE FROM disks WHERE vm = ?", (vm,))

    # agents that are not trusted

    def distrust(self, vm: str, found: Distrust) -> None:
        """Until ``trust``."""
        with self.change() as database:
            database.execute("INSERT OR REPLACE INTO distrusts VALUES (?, ?, ?)", (vm, found.since, found.reason))

    def distrusted(self, vm: str) -> Distrust | None:
        """None: nothing false was found of its agent, or it is trusted again."""
        rows = self.rows("SELECT since, reason FROM distrusts WHERE vm = ?", vm)
        return Distrust(*rows[0]) if rows else None

    def trust(self, vm: str) -> Distrust | None:
        """Use its agent again. Returns what was held against it."""
        found = self.distrusted(vm)
        with self.change() as database:
            database.execute("DELETE FROM distrusts WHERE vm = ?", (vm,))
        return found

    # what finds bitmaps again

    def keep(self, vm: str, keepsakes: Mapping[str, str]) -> None:
        """These, and no others any longer."""
        with self.change() as database:
            database.execute("DELETE FROM keepsakes WHERE vm = ?", (vm,))
            values = ((vm, name, content) for name, content in keepsakes.items())
            database.executemany("INSERT INTO keepsakes VALUES (?, ?, ?)", values)

    def kept(self, vm: str) -> dict[str, str]:
        return dict(self.rows("SELECT name, content FROM keepsakes WHERE vm = ?", vm))

    # completions

    def spooled(self, vm: str, completion: Completion, disks: Iterable[Tracked], dirty: Mapping[str, Blocks]) -> None:
        """The point in time is over; from here the backup can be finished without the VM."""
        with self.change() as database:
            for disk in disks:
                self._put_disk(database, vm, disk)
                self._forget_blocks(database, vm, disk.name, dirty.get(disk.name, ()))
            database.execute(
                "INSERT OR REPLACE INTO completions VALUES (?, ?, ?)",
                (vm, completion.id, completion_to_text(completion)),
            )

    def rehearsed(self, vm: str, snapshot: str, shown: Mapping[str, Any]) -> None:
        """For who keeps a catalogue: ``shown`` as its proof has it."""
        with self.change() as database:
            self._publish(database, {"vm": vm, "snapshot": snapshot, "rehearsed": dict(shown)})

    def _publish(self, database: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
        now = time.time()
        old = "SELECT number FROM publications WHERE moment < ? ORDER BY number LIMIT ?"
        database.execute(f"DELETE FROM publications WHERE number IN ({old})", (now - KEPT_SECONDS, GOING))
        database.execute("INSERT INTO publications (moment, facts) VALUES (?, ?)", (now, json.dumps(facts)))

    def completion(self, vm: str) -> Completion | None:
        rows = self.rows("SELECT id, facts FROM completions WHERE vm = ?", vm)
        return completion_from_text(*rows[0]) if rows else None

    def abandon_completion(self, vm: str, gone: Mapping[str, Blocks] | None = None) -> None:
        """The spool is lost: what the draft has stays valid, except for ``gone`` by disk; the rest remains to be
        copied."""
        with self.change() as database:
            database.execute("DELETE FROM completions WHERE vm = ?", (vm,))
            for disk, lost in (gone or {}).items():
                self._forget_blocks(database, vm, disk, lost)

    def published(
        self, vm: str, disks: Iterable[Tracked], point: Point, facts: Mapping[str, Any] | None = None
    ) -> None:
        """The snapshot exists: its base marks count from now on, and the draft is used up. ``facts``: what a catalogue
        says of it."""
        with self.change() as database:
            if facts is not None:
                self._publish(database, facts)
            database.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", (vm, point.snapshot, point.created))
            self._forget_draft(database, vm)
            for disk in disks:
                self._put_disk(database, vm, disk)

    def point(self, vm: str) -> Point | None:
        """The newest that was published from here."""
        rows = self.rows("SELECT snapshot, created FROM points WHERE vm = ?", vm)
        return Point(*rows[0]) if rows else None


def _insert(database: sqlite3.Connection, verb: str, table: str, row: Mapping[str, Any]) -> None:
    marks = ", ".join("?" * len(row))
    database.execute(f"{verb} INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
