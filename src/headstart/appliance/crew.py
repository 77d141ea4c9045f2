"""Several appliances at one round: who is free gets the next portion, and what one loses the others get.

::

    blocks to copy  ->  portions  ->  two at each appliance  ->  read  ->  durable, they say  ->  seen in the repository
                           ^                    |                                                      |
                           +---- one is lost ---+                                                      v  counts
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headstart import blocks, errors
from headstart.appliance import messages
from headstart.appliance.evidence import Evidence, Seen
from headstart.appliance.link import Lost
from headstart.appliance.remote import Remote
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.contract import Spells
from headstart.load.throttle import Permit
from headstart.repository import Repository
from headstart.transfer.pipeline import Stored

#: Of each appliance so many requests are under way: it reads the next while we learn of the last.
_AHEAD = 2
#: Bytes of one request, where nothing bounds the rate.
PORTION = 32 << 20
#: A question and its answer cost about a millisecond.
PORTIONS = 3
_LISTEN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Offered:
    """A disk of ``size`` bytes that is read over NBD at ``uri``; or, where that is empty, where each of ``spells``
    says, as long as it lasts."""

    size: int
    uri: str
    spells: Spells | None = None


class Overseer(Protocol):
    """Whoever runs the round."""

    def seen(self, found: Seen) -> None:
        """These blocks are durable, and count."""
        ...

    def lost(self, name: str, why: str) -> None:
        """An appliance is not used any longer in this round."""
        ...

    def beat(self) -> None:
        """Something goes on; may raise to end the round."""
        ...


class Crew:
    """One round, used by one thread. A context manager: leaving it lets the appliances go."""

    def __init__(
        self, repo: Repository, disks: Mapping[str, Offered], overseer: Overseer, *, certain: bool = False
    ) -> None:
        """``certain``: what they say counts at once; for trials, of which nothing is kept."""
        self._disks = dict(disks)
        self._numbers = {name: number for number, name in enumerate(disks)}
        self._names = list(disks)
        self._block_size = repo.block_size
        self._evidence = Evidence(repo)
        self._overseer = overseer
        self._certain = certain
        self._remotes: list[Remote] = []
        #: What was lost of disks that are not being copied any longer.
        self._back: dict[str, Blocks] = {name: Blocks() for name in disks}
        #: Bytes that they have added to the store.
        self.stored_bytes = 0

    def join(self, remote: Remote) -> bool:
        """Offer every disk to one more, which is the crew's from now on. Whether it took them; if not, why is told."""
        self._remotes.append(remote)
        return all(self._offer(remote, name, disk.uri) for name, disk in self._disks.items() if disk.uri)

    def _offer(self, remote: Remote, disk: str, uri: str) -> bool:
        try:
            remote.offer(self._numbers[disk], self._disks[disk].size, uri)
        except (errors.Unreachable, errors.Unsupported) as error:
            self._let_go(remote, error)
            return False
        return True

    @property
    def there(self) -> bool:
        """Somebody works."""
        return bool(self._remotes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(remote.name for remote in self._remotes)

    def copy(self, disk: str, wanted: Blocks, permit: Permit | None = None) -> Blocks:
        """Have blocks of a disk copied. Returns those that nobody is left for. Others come back from ``settle``.

        Raises what the permit and the overseer raise, and where the disk is shown in spells, what they raise."""
        offered = self._disks[disk]
        if offered.spells is None:
            return self._copy(disk, wanted, permit)
        while wanted and self._remotes:
            with offered.spells.spell() as uri:
                for remote in list(self._remotes):
                    self._offer(remote, disk, uri)
                wanted = self._copy(disk, wanted, permit, time.monotonic() + offered.spells.spell_seconds)
        return wanted

    def _copy(self, disk: str, wanted: Blocks, permit: Permit | None, until: float = math.inf) -> Blocks:
        """As long as the disk can be read: nothing more is asked for after ``until``, but once."""
        work = deque(blocks.to_extents(wanted, self._block_size, self._disks[disk].size))
        over = False
        while self._remotes and ((work and not over) or any(remote.unread for remote in self._remotes)):
            for remote in self._remotes:
                while work and not over and remote.unread < _AHEAD:
                    self._ask(remote, disk, work, permit)
            over = time.monotonic() > until
            self._listen()
            work += self._returned(disk)
            if permit is not None:
                permit.check()
        return blocks.of_extents([*work, *self._returned(disk)], self._block_size)

    def _ask(self, remote: Remote, disk: str, work: deque[Extent], permit: Permit | None) -> None:
        count = PORTION if permit is None else permit.portion() * PORTIONS
        portion = _taken(work, max(count // self._block_size, 1) * self._block_size)
        if permit is not None:
            permit.wait(sum(extent.length for extent in portion))
        remote.ask(self._numbers[disk], portion)

    def _returned(self, disk: str) -> Iterable[Extent]:
        found, self._back[disk] = self._back[disk], Blocks()
        return blocks.to_extents(found, self._block_size, self._disks[disk].size)

    def settle(self) -> dict[str, Blocks]:
        """Everything that was read is durable, and was seen to be. Returns what is not, by disk, and has to be copied
        once more."""
        for remote in list(self._remotes):
            remote.flush()
        while any(not remote.settled for remote in self._remotes):
            self._listen(quietly=True)
        self.stored_bytes += sum(_count(remote) for remote in self._remotes)
        found, absent = self._evidence.conclude()
        self._tell(found)
        for whose, stored in absent.items():
            self._overseer.lost(whose, f"{len(stored)} chunks that it says it has stored are not in the repository")
            for each in stored:
                self._back[each.disk].add(each.block)
        returned, self._back = self._back, {name: Blocks() for name in self._disks}
        return {name: found for name, found in returned.items() if found}

    def _listen(self, *, quietly: bool = False) -> None:
        """Take what has come; wait for it if nothing has. ``quietly``: the round is over already, whatever its overseer
        thinks of that."""
        heard = [self._hear(remote) for remote in list(self._remotes)]
        if not any(heard):
            self._wait()
        if not quietly:
            self._overseer.beat()
        self._tell(self._evidence.look())

    def _hear(self, remote: Remote) -> bool:
        try:
            delivered = remote.hear(0)
        except Lost as error:
            self._let_go(remote, error)
            return True
        for each in delivered:
            name = self._names[each.disk]
            stored = [Stored(name, block, chunk) for block, chunk in each.stored]
            if self._certain:
                self._tell([Seen(remote.name, stored, ())])
            else:
                self._evidence.claim(remote.name, stored, each.packs)
        return bool(delivered)

    def _wait(self) -> None:
        poll = select.poll()
        for remote in self._remotes:
            if remote.link.waiting:
                return
            poll.register(remote.link, select.POLLIN)
        if self._remotes:
            poll.poll(_LISTEN_SECONDS * 1000)

    def _let_go(self, remote: Remote, error: errors.HeadstartError) -> None:
        self._remotes.remove(remote)
        for name, number in self._numbers.items():
            self._back[name] |= remote.owed(number)
        remote.close()
        self._overseer.lost(remote.name, str(error))

    def _tell(self, found: Sequence[Seen]) -> None:
        for each in found:
            if each.stored or each.packs:
                self._overseer.seen(each)

    def figures(self) -> dict[str, dict[str, object]]:
        """What each appliance said of its last flush."""
        return {remote.name: remote.flushed for remote in self._remotes}

    @property
    def relays(self) -> list[int]:
        """Process ids of what brings the disks."""
        return [process for remote in self._remotes for process in remote.relays]

    def close(self) -> None:
        for remote in self._remotes:
            remote.close()
        self._remotes.clear()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _count(remote: Remote) -> int:
    found = remote.flushed.get("stored_bytes")
    return found if isinstance(found, int) and found > 0 else 0


def _taken(work: deque[Extent], count: int) -> list[Extent]:
    """So many bytes from the front, in the order of the disk."""
    found: list[Extent] = []
    while work and count > 0 and len(found) < messages.EXTENTS:
        if found and work[0].start < found[-1].end:
            break
        extent = work.popleft()
        if extent.length > count:
            work.appendleft(Extent(extent.start + count, extent.length - count))
            extent = Extent(extent.start, count)
        found.append(extent)
        count -= extent.length
    return found
