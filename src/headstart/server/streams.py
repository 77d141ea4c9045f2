"""Those who watch: what happens in a tenant, told to all of them as it comes.

However many watch a tenant in this process, one reader asks the database. Whoever is too slow to take what is told is
let go, and comes again with the number of the last event that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

from headstart import errors
from headstart.server import events, vms
from headstart.server.database import Database

_log = logging.getLogger("headstart.server")

#: Seconds between two questions of a reader.
ASK_SECONDS = 1.0
#: Who watches is told that all is well after so long without anything else, and has to show anew who it is after
#: ``LIFE_SECONDS``.
BEAT_SECONDS, LIFE_SECONDS = 15.0, 600.0
#: Of a tenant in this process; and what waits for one of them.
MOST, QUEUE = 200, 1000
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Item:
    """``number`` of an event; None: how a VM is at the moment."""

    number: int | None
    value: Mapping[str, Any]


@dataclass(eq=False, slots=True)
class _Watcher:
    queue: asyncio.Queue[Item | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    slow: bool = False

    def tell(self, item: Item) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.slow = True


class _Reader:
    """Of one tenant, while somebody watches."""

    def __init__(self, database: Database, tenant: str, number: int) -> None:
        self.watchers: set[_Watcher] = set()
        self.number = number
        self._database = database
        self._tenant = tenant
        #: What was told last of each VM that is busy.
        self.busy: dict[str, dict[str, Any]] = {}

    async def run(self) -> None:
        while True:
            try:
                await self._turn()
            except errors.HeadstartError as error:
                _log.warning("Those who watch are told nothing for a while: %s", error)
            except Exception:
                _log.exception("A bug: it is tried again.")
            await asyncio.sleep(ASK_SECONDS)

    async def _turn(self) -> None:
        while True:
            found, busy = await run_in_threadpool(self._ask)
            for event in found:
                self.number = event["id"]
                self._tell(Item(event["id"], event))
            if len(found) < _PAGE:
                break
        now = {each["id"]: each for each in busy}
        for vm, each in now.items():
            if each != self.busy.get(vm):
                self._tell(Item(None, each))
        for vm in self.busy.keys() - now.keys():
            self._tell(Item(None, {**self.busy[vm], "view": None, "over": True}))
        self.busy = now

    def _ask(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        with self._database.read() as connection:
            return events.after(connection, self._tenant, self.number, _PAGE), vms.busy(connection, self._tenant)

    def _tell(self, item: Item) -> None:
        for each in self.watchers:
            each.tell(item)


class Streams:
    """Of one process; used in its loop alone."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._readers: dict[str, tuple[_Reader, asyncio.Task[None]]] = {}
        self._ended = False

    def close(self) -> None:
        """The process ends: nobody is to be waited for. From any thread of its loop."""
        self._ended = True
        for reader, task in self._readers.values():
            task.cancel()
            for each in reader.watchers:
                each.slow = True
                with contextlib.suppress(asyncio.QueueFull):
                    each.queue.put_nowait(None)

    def watched(self, tenant: str | None) -> bool:
        """Whether anybody watches it in this process. For any thread."""
        return tenant in self._readers

    async def watch(self, tenant: str, after: int | None) -> AsyncIterator[Item | None]:
        """What happens after the event of that number; None: from now on. An item None, also the first: nothing
        happened for a while. Ends when whoever watches is to come again. Raises ``TooOften``."""
        watcher, reader = _Watcher(), await self._reader(tenant)
        if len(reader.watchers) >= MOST:
            raise errors.TooOften("Too many watch this tenant already. Try again.", seconds=30)
        # Before anything is read: what comes meanwhile is in the queue.
        reader.watchers.add(watcher)
        try:
            yield None
            for each in reader.busy.values():
                yield Item(None, each)
            last = reader.number if after is None else after
            while after is not None:
                found = await run_in_threadpool(self._earlier, tenant, last)
                for event in found:
                    last = event["id"]
                    yield Item(last, event)
                if len(found) < _PAGE:
                    break
            async for item in self._told(watcher, last):
                yield item
        finally:
            reader.watchers.discard(watcher)
            self._let_go(tenant)

    async def _told(self, watcher: _Watcher, last: int) -> AsyncIterator[Item | None]:
        ends = self._clock() + LIFE_SECONDS
        while not watcher.slow and self._clock() < ends:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    item = await watcher.queue.get()
            except TimeoutError:
                yield None
                continue
            if item is not None and (item.number is None or item.number > last):
                yield item

    def _earlier(self, tenant: str, number: int) -> list[dict[str, Any]]:
        with self._database.read() as connection:
            return events.after(connection, tenant, number, _PAGE)

    async def _reader(self, tenant: str) -> _Reader:
        if self._ended:
            raise errors.StoreFailed("The server is being stopped. Try again.")
        if tenant not in self._readers:
            number = await run_in_threadpool(self._last, tenant)
            # Somebody else may have come meanwhile.
            if tenant not in self._readers:
                made = _Reader(self._database, tenant, number)
                self._readers[tenant] = (made, asyncio.create_task(made.run()))
        return self._readers[tenant][0]

    def _last(self, tenant: str) -> int:
        with self._database.read() as connection:
            return events.last(connection, tenant)

    def _let_go(self, tenant: str) -> None:
        found = self._readers.get(tenant)
        if found is not None and not found[0].watchers:
            del self._readers[tenant]
            found[1].cancel()
