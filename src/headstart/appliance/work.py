"""What an appliance does for one round of a host: read disks, and store what is in them.

::

    a thread for orders     offer: a client of NBD        read: the pipeline        flush: durable and listed
    the writer's threads                                  durable  --->  told at once
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.appliance import device, messages, relay
from headstart.appliance.counter import Counter
from headstart.appliance.device import DeviceReader
from headstart.appliance.messages import Kind, Read
from headstart.appliance.relay import Relay, Ticket
from headstart.repository import Repository
from headstart.transfer.pipeline import Pipeline, Stored
from headstart.wire import nbd

#: ``tell(kind, payload)``, from any thread.
Tell = Callable[[Kind, bytes], None]


class Unreadable(errors.Unreachable):
    """The disk that a host offers cannot be read."""


class Gone(Exception):
    """Nobody waits for it any longer."""


class Work:
    """One round. A context manager; left by an exception, what is not in the store yet is abandoned."""

    def __init__(self, repo: Repository, counter: Counter, keys: Path, tell: Tell) -> None:
        self._counter = counter
        self._keys = keys
        self._tell = tell
        self._disks: dict[int, nbd.Client | DeviceReader] = {}
        self._noted = 0
        self._began = time.process_time()
        self._telling = threading.Lock()
        self._wanted = True
        self._relays: dict[int, Relay] = {}
        self._brought: dict[int, contextlib.ExitStack] = {}
        self._stack = contextlib.ExitStack()
        self._writer = repo.writer(self._report)
        self._pipeline = Pipeline(repo, self._writer, self._report)

    def give_up(self) -> None:
        """From any thread: what is under way ends at its next piece, and no disk is waited for."""
        self._wanted = False
        for each in list(self._relays.values()):
            each.end()

    def offer(self, disk: int, size: int, ticket: Ticket) -> None:
        """Take a disk that is being brought. Raises ``Unreadable``, ``Lost``."""
        stack = self._renewed(disk)
        with self._counter.taken(ticket.token) as link:
            try:
                brought, near = relay.receive(link, self._keys, ticket)
            except errors.Unreachable as error:
                raise Unreadable(str(error)) from error
            self._relays[disk] = stack.enter_context(brought)
            try:
                client = nbd.Client(nbd.Connected(near.detach(), f"disk {disk} of the host"), failure=Unreadable)
            except errors.Unreachable as error:
                raise Unreadable(" ".join(filter(None, [str(error), brought.last_words()]))) from error
        self._open(disk, size, stack.enter_context(client))

    def find(self, disk: int, size: int, serial: str) -> None:
        """Take a disk that is plugged into this machine. Raises ``Unreadable``."""
        path = device.wait_for(serial, lambda: self._wanted)
        if path is None:
            raise Unreadable(f"No disk with serial number {serial} has come: is this the guest that the host means?")
        self._open(disk, size, self._renewed(disk).enter_context(DeviceReader(path, Unreadable)))

    def _renewed(self, disk: int) -> contextlib.ExitStack:
        """For what is brought by this number: what was before is not there any longer."""
        before = self._brought.pop(disk, None)
        if before is not None:
            before.close()
        self._brought[disk] = stack = contextlib.ExitStack()
        self._stack.callback(stack.close)
        return stack

    def _open(self, disk: int, size: int, reader: nbd.Client | DeviceReader) -> None:
        self._disks[disk] = reader
        if reader.size != size:
            raise Unreadable(f"The disk that was announced with {size} bytes has {reader.size}.")
        self._tell(Kind.OPENED, messages.pack_json({"disk": disk}))

    def read(self, order: Read) -> None:
        """Raises ``Gone`` when it is given up, ``Malformed``, and what reading and storing raise."""
        client = self._disks.get(order.disk)
        if client is None or (order.extents and order.extents[-1].end > client.size):
            raise messages.Malformed("a request for what was not offered")

        def progress(count: int) -> None:
            self._check()
            self._tell(Kind.READING, messages.pack_progress(order.request, count))

        self._check()
        self._pipeline.copy(str(order.disk), client, order.extents, progress)
        self._tell(Kind.READ_ALL, messages.pack_progress(order.request))

    def flush(self) -> None:
        self._pipeline.settle()
        self._writer.flush()
        self._report([])
        told: dict[str, Any] = {
            "stored_bytes": self._writer.stored_bytes,
            "cpu_seconds": time.process_time() - self._began + sum(each.cpu_seconds for each in self._relays.values()),
            "cpus": os.cpu_count(),
        }
        self._tell(Kind.FLUSHED, messages.pack_json(told))

    def _check(self) -> None:
        if not self._wanted:
            raise Gone

    def _report(self, stored: list[Stored]) -> None:
        """Durable, or zeroes. From any thread."""
        with self._telling:
            packs = self._writer.packs[self._noted :]
            self._noted += len(packs)
        if packs:
            self._tell(Kind.PACKS, messages.pack_packs(packs))
        by_disk: dict[str, list[Stored]] = {}
        for each in stored:
            by_disk.setdefault(each.disk, []).append(each)
        for disk, found in by_disk.items():
            for start in range(0, len(found), messages.BLOCKS):
                part = found[start : start + messages.BLOCKS]
                self._tell(Kind.STORED, messages.pack_stored(int(disk), part))

    def __enter__(self) -> Work:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._writer)
            stack.enter_context(self._pipeline)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: Any) -> bool | None:
        return self._stack.__exit__(*details)
