"""The journal of a host: what was identified, copied, completed, in the order in which it became true.

Every method that changes something is one SQLite transaction and ends in ``_commit``. A lost or old
journal is safe: marks are named at random, so that an old copy does not find its marks again, and
what it does not know is read once more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.blocks import Blocks
from headstart.state import schema
from headstart.state.encoding import blocks_from_bytes, blocks_to_bytes, facts_from_text, facts_to_text
from headstart.state.values import Completion, Domain, Draft, Run, Tracked, Vm
from headstart.transfer.pipeline import Stored

_BUSY_SECONDS = 30.0


class Journal:
    """A context manager; usable from several threads."""

    def __init__(self, database: sqlite3.Connection, directory: Path | None) -> None:
        self._database = database
        self._directory = directory
        self._lock = threading.RLock()
        self.installation = self._prepare()

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """Raises ``Usage`` when the directory cannot be used, ``Unsupported`` when it is newer than we."""
        try:
            # Others may pass through, to scratch files that are QEMU's, and see nothing.
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            path = directory / "state.sqlite3"
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            return cls(database, directory)
        except (OSError, sqlite3.Error) as error:
            raise errors.Usage(
                f"The state directory {directory} cannot be used: {error}. Name another one with --state,"
                " or move the damaged file away: losing it costs the head start, no data."
            ) from error

    @classmethod
    def in_memory(cls) -> Journal:
        return cls(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), None)

    def _prepare(self) -> str:
        database = self._database
        database.execute("PRAGMA foreign_keys = ON")
        # A commit that a power cut takes back is an old journal, which is safe.
        database.execute("PRAGMA synchronous = NORMAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise errors.Unsupported(
                f"The state was written by a newer Headstart (version {version}, this one knows"
                f" {schema.VERSION}). Use that one, or name another --state."
            )
        if version == 0:
            self._create()
        else:
            self._upgrade(version)
        row = database.execute("SELECT value FROM meta WHERE name = 'installation'").fetchone()
        return str(row[0])

    def _create(self) -> None:
        installation = secrets.token_hex(4)
        self._database.executescript(
            f"BEGIN IMMEDIATE;{schema.TABLES}PRAGMA user_version = {schema.VERSION};"
            f"INSERT INTO meta VALUES ('installation', '{installation}');COMMIT;"
        )

    def _upgrade(self, version: int) -> None:
        if version == schema.VERSION:
            return
        with self._change() as database:
            # Another process may have come first.
            begun = database.execute("PRAGMA user_version").fetchone()[0]
            for each in range(begun, schema.VERSION):
                for statement in schema.UPGRADES[each]:
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {schema.VERSION}")

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._telling():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._commit()
            except BaseException:
                # SQLite may have rolled back by itself, as it does when the disk is full.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._database.execute("ROLLBACK")
                raise

    def _commit(self) -> None:
        self._database.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, self._telling():
            return self._database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What SQLite reports is told to the user in our words."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            where = f"The state in {self._directory}"
            match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest says in which operation
                case sqlite3.SQLITE_FULL:
                    raise errors.NoSpace(f"{where} cannot be written: the disk is full. Make room there.") from error
                case sqlite3.SQLITE_BUSY:
                    raise errors.Locked(f"{where} is in use by another process for too long. Try again.") from error
            raise errors.Usage(
                f"{where} cannot be used: {error}. If it stays so, move the file away: losing it costs the head"
                " start, no data."
            ) from error

    # VMs

    def add_vm(self, vm: Vm) -> None:
        values = (
            vm.name,
            str(vm.monitor or ""),
            vm.agent or None,
            str(vm.qga) if vm.qga else None,
            json.dumps(vm.excluded),
            vm.definition,
            vm.added or time.time(),
            vm.domain.uri if vm.domain else None,
            vm.domain.name if vm.domain else None,
        )
        with self._change() as database:
            if database.execute("SELECT 1 FROM vms WHERE name = ?", (vm.name,)).fetchone():
                raise errors.Usage(f"There is a VM '{vm.name}' already: 'headstart vm remove {vm.name}' first.")
            database.execute("INSERT INTO vms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def vms(self) -> list[Vm]:
        return [_vm(row) for row in self._rows("SELECT * FROM vms ORDER BY name")]

    def vm(self, name: str) -> Vm:
        rows = self._rows("SELECT * FROM vms WHERE name = ?", name)
        if not rows:
            raise errors.NotFound(f"There is no VM '{name}' here. 'headstart vm list' shows those that are.", vm=name)
        return _vm(rows[0])

    def remove_vm(self, name: str) -> None:
        self.vm(name)
        with self._change() as database:
            database.execute("DELETE FROM vms WHERE name = ?", (name,))

    @contextlib.contextmanager
    def lock(self, vm: str) -> Iterator[None]:
        """One process at a time works on a VM; raises ``Locked`` with the holder's process id."""
        if self._directory is None:
            yield
            return
        path = self._directory / f"{vm}.lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read(64).strip() or "unknown"
                raise errors.Locked(
                    f"Another headstart (process {holder}) works on VM '{vm}'. Wait until it is done.", vm=vm
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    # disks and drafts

    def tracked(self, vm: str) -> dict[str, Tracked]:
        return {row[1]: _tracked(row) for row in self._rows("SELECT * FROM disks WHERE vm = ?", vm)}

    def draft(self, vm: str) -> Draft | None:
        rows = self._rows("SELECT id, repository, rounds, records, next_rounds, begun FROM drafts WHERE vm = ?", vm)
        if not rows:
            return None
        id_, repository, rounds, records, next_rounds, begun = rows[0]
        return Draft(id_, repository, rounds, records, tuple(json.loads(next_rounds)), begun)

    def begin_round(self, vm: str, draft: Draft, disks: Iterable[Tracked], dropped: Sequence[str]) -> None:
        """Before the marks of the last of ``draft.next_rounds`` are started: what will be true of each disk then.

        ``dropped`` are disks whose part of the draft cannot be believed. A draft with another id than
        the present one replaces it whole."""
        with self._change() as database:
            present = database.execute("SELECT id FROM drafts WHERE vm = ?", (vm,)).fetchone()
            if present and present[0] != draft.id:
                self._forget_draft(database, vm)
            for disk in dropped:
                database.execute("DELETE FROM copied WHERE vm = ? AND disk = ?", (vm, disk))
            self._put_draft(database, vm, draft)
            names = [self._put_disk(database, vm, disk) for disk in disks]
            marks = ",".join("?" * len(names))
            for table in ("disks", "copied"):
                database.execute(f"DELETE FROM {table} WHERE vm = ? AND disk NOT IN ({marks})", (vm, *names))

    def end_round(self, vm: str, draft: Draft, disks: Iterable[Tracked], dirty: Mapping[str, Blocks]) -> None:
        """The round is read: ``dirty`` blocks of the draft are stale and leave it."""
        with self._change() as database:
            self._put_draft(database, vm, draft)
            for disk in disks:
                self._put_disk(database, vm, disk)
                stale = ((vm, disk.name, block) for block in dirty.get(disk.name, ()))
                database.executemany("DELETE FROM copied WHERE vm = ? AND disk = ? AND block = ?", stale)

    def put_disk(self, vm: str, disk: Tracked) -> None:
        with self._change() as database:
            self._put_disk(database, vm, disk)

    def _put_draft(self, database: sqlite3.Connection, vm: str, draft: Draft) -> None:
        database.execute(
            "INSERT OR REPLACE INTO drafts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (vm, draft.id, draft.repository, draft.rounds, draft.records, json.dumps(draft.next_rounds), draft.begun),
        )

    def _put_disk(self, database: sqlite3.Connection, vm: str, disk: Tracked) -> str:
        values = (
            vm,
            disk.name,
            disk.nonce,
            facts_to_text(disk.facts),
            disk.base,
            disk.snapshot,
            disk.round,
            blocks_to_bytes(disk.entire),
            blocks_to_bytes(disk.owed),
            disk.reason,
        )
        database.execute("INSERT OR REPLACE INTO disks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        return disk.name

    def copied(self, vm: str, round_id: str, done: Iterable[Stored], packs: Iterable[str] = ()) -> None:
        """Blocks that were read after ``round_id`` began and are durable now.

        Answers to an older round are stale and raise ``Locked``: somebody else went on meanwhile."""
        with self._change() as database:
            row = database.execute(
                "SELECT records FROM drafts JOIN disks USING (vm) WHERE vm = ? AND round = ?", (vm, round_id)
            ).fetchone()
            if row is None:
                raise errors.Locked(f"The round {round_id[:8]} of VM '{vm}' is over: its blocks do not count.")
            values = ((vm, each.disk, each.block, each.chunk, row[0]) for each in done)
            database.executemany("INSERT OR REPLACE INTO copied VALUES (?, ?, ?, ?, ?)", values)
            database.executemany("INSERT OR IGNORE INTO packs VALUES (?, ?)", ((vm, pack) for pack in packs))

    def copied_blocks(self, vm: str, disk: str) -> Blocks:
        rows = self._rows("SELECT block FROM copied WHERE vm = ? AND disk = ?", vm, disk)
        return Blocks(block for (block,) in rows)

    def copied_chunks(self, vm: str, disk: str) -> Iterator[tuple[int, bytes | None]]:
        """The draft of a disk, ascending; fetched in portions, so that others may write meanwhile."""
        after = -1
        while True:
            rows = self._rows(
                "SELECT block, chunk FROM copied WHERE vm = ? AND disk = ? AND block > ? ORDER BY block LIMIT 10000",
                vm,
                disk,
                after,
            )
            yield from rows
            if not rows:
                return
            after = rows[-1][0]

    def last_copied(self, vm: str, disk: str, count: int) -> Blocks:
        """The last blocks of the draft of a disk that are not zeroes."""
        query = "SELECT block FROM copied WHERE vm = ? AND disk = ? AND chunk IS NOT NULL ORDER BY block DESC LIMIT ?"
        return Blocks(block for (block,) in self._rows(query, vm, disk, count))

    def chunks_of(self, vm: str, disk: str, wanted: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """The draft's chunks of some blocks; blocks that are not in it are passed over."""
        query = "SELECT chunk FROM copied WHERE vm = ? AND disk = ? AND block = ?"
        for block in wanted:
            for (chunk,) in self._rows(query, vm, disk, block):
                yield block, chunk

    def forget_copied(self, vm: str, disk: str, stale: Iterable[int] | None = None) -> None:
        """These blocks of the draft (all, if none are named) are not believed: they remain to be copied."""
        with self._change() as database:
            if stale is None:
                database.execute("DELETE FROM copied WHERE vm = ? AND disk = ?", (vm, disk))
            else:
                rows = ((vm, disk, block) for block in stale)
                database.executemany("DELETE FROM copied WHERE vm = ? AND disk = ? AND block = ?", rows)

    def unrecorded(self, vm: str, record: int) -> dict[str, list[tuple[int, bytes]]]:
        """By disk, the chunks of the draft that none of its objects in the repository lists yet."""
        found: dict[str, list[tuple[int, bytes]]] = {}
        query = "SELECT disk, block, chunk FROM copied WHERE vm = ? AND record >= ? AND chunk IS NOT NULL"
        for disk, block, chunk in self._rows(query + " ORDER BY disk, block", vm, record):
            found.setdefault(disk, []).append((block, chunk))
        return found

    def recorded(self, vm: str, draft: Draft) -> None:
        """The repository lists the draft's blocks up to now."""
        with self._change() as database:
            self._put_draft(database, vm, draft)

    def packs(self, vm: str) -> list[str]:
        return [row[0] for row in self._rows("SELECT pack FROM packs WHERE vm = ?", vm)]

    def forget_draft(self, vm: str) -> None:
        with self._change() as database:
            self._forget_draft(database, vm)

    def _forget_draft(self, database: sqlite3.Connection, vm: str) -> None:
        for table in ("drafts", "copied", "packs", "completions"):
            database.execute(f"DELETE FROM {table} WHERE vm = ?", (vm,))

    def forget_tracking(self, vm: str) -> None:
        """As if the VM had never been met."""
        with self._change() as database:
            self._forget_draft(database, vm)
            database.execute("DELETE FROM disks WHERE vm = ?", (vm,))

    # what finds bitmaps again

    def keep(self, vm: str, keepsakes: Mapping[str, str]) -> None:
        """These, and no others any longer."""
        with self._change() as database:
            database.execute("DELETE FROM keepsakes WHERE vm = ?", (vm,))
            values = ((vm, name, content) for name, content in keepsakes.items())
            database.executemany("INSERT INTO keepsakes VALUES (?, ?, ?)", values)

    def kept(self, vm: str) -> dict[str, str]:
        return dict(self._rows("SELECT name, content FROM keepsakes WHERE vm = ?", vm))

    # completions

    def spooled(self, vm: str, completion: Completion, disks: Iterable[Tracked], dirty: Mapping[str, Blocks]) -> None:
        """The point in time is over; from here the backup can be finished without the VM."""
        with self._change() as database:
            for disk in disks:
                self._put_disk(database, vm, disk)
                stale = ((vm, disk.name, block) for block in dirty.get(disk.name, ()))
                database.executemany("DELETE FROM copied WHERE vm = ? AND disk = ? AND block = ?", stale)
            database.execute(
                "INSERT OR REPLACE INTO completions VALUES (?, ?, ?)",
                (vm, completion.id, json.dumps(completion.facts)),
            )

    def completion(self, vm: str) -> Completion | None:
        rows = self._rows("SELECT id, facts FROM completions WHERE vm = ?", vm)
        return Completion(rows[0][0], json.loads(rows[0][1])) if rows else None

    def abandon_completion(self, vm: str) -> None:
        """The spool is lost: what the draft has stays valid, the rest remains to be copied."""
        with self._change() as database:
            database.execute("DELETE FROM completions WHERE vm = ?", (vm,))

    def published(self, vm: str, disks: Iterable[Tracked]) -> None:
        """The snapshot exists: its base marks count from now on, and the draft is used up."""
        with self._change() as database:
            self._forget_draft(database, vm)
            for disk in disks:
                self._put_disk(database, vm, disk)

    # runs

    def begin_run(self, vm: str, verb: str) -> int:
        with self._change() as database:
            cursor = database.execute(
                "INSERT INTO runs (vm, verb, begun, report) VALUES (?, ?, ?, '{}')", (vm, verb, time.time())
            )
            return int(cursor.lastrowid or 0)

    def end_run(self, number: int, report: Mapping[str, Any]) -> None:
        with self._change() as database:
            database.execute(
                "UPDATE runs SET ended = ?, report = ? WHERE number = ?", (time.time(), json.dumps(report), number)
            )

    def runs(self, vm: str, limit: int = 20) -> list[Run]:
        rows = self._rows("SELECT * FROM runs WHERE vm = ? ORDER BY number DESC LIMIT ?", vm, limit)
        return [Run(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _vm(row: Sequence[Any]) -> Vm:
    name, monitor, agent, qga, excluded, definition, added, uri, domain = row
    return Vm(
        name,
        Path(monitor) if monitor else None,
        agent or "",
        Path(qga) if qga else None,
        tuple(json.loads(excluded)),
        definition,
        added,
        Domain(uri, domain) if uri else None,
    )


def _tracked(row: Sequence[Any]) -> Tracked:
    _, name, nonce, facts, base, snapshot, round_id, entire, owed, reason = row
    return Tracked(
        name,
        nonce,
        facts_from_text(facts),
        base,
        snapshot,
        round_id,
        blocks_from_bytes(entire),
        blocks_from_bytes(owed),
        reason,
    )
