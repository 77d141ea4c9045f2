"""A guest without a hypervisor that helps: its filters record, its agent reads, it keeps its own point in time.

A mark is an era of each filter: what was written in it or later has changed since. Nothing can be frozen, and a mark
is forgotten for good when it is removed.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.guest.agent import Agent
from headstart.guest.filters import Filter, Seen
from headstart.guest.only.point import GuestPoint
from headstart.hypervisor.contract import Action, Bitmap, LiveReader, PointInTime, PointRequest, Remove, Start
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.inventory import Disk, ImageFile, Inventory, LeftOut, Recorder
from headstart.reading import Piece, Reader

_KEPT = "filter "
_NOBODY = (
    "The guest has no filter that records changes: 'headstart-agentd filter add NAME DISK COMPANION' there makes one"
    " (docs/guest-only.md)."
)


class GuestMachine:
    """``headstart.hypervisor.contract.Machine``. ``excluded``: names of filters to leave out."""

    agent = ""
    off = False

    def __init__(
        self,
        session: Agent,
        *,
        installation: str,
        block_size: int,
        excluded: Container[str] = (),
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Owns ``session``. ``beat`` is called while the guest tells what was written, and may raise."""
        self.session = session
        self._filters = session.filters()
        self._installation = installation
        self._block_size = block_size
        self._excluded = excluded
        self._beat = beat
        self._words: dict[str, str] = {}

    # -- meeting

    def awaken(self) -> tuple[str, ...]:
        return ()

    def recover(self) -> tuple[str, ...]:
        """What a dead run left went with its session, or goes when filters are looked at."""
        self._look()
        return ()

    def reclaim(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        """A filter that has not the word of the last contact is an older one than that met: no mark of ours there is
        believed. Its owner may also have put back a disk without its companion: that only the audit can find."""
        words = {name.removeprefix(_KEPT): word for name, word in kept.items() if name.startswith(_KEPT)}
        word = secrets.token_hex(16)
        doubted = self._filters.greet(self._installation, words, word)
        self._words = {f"{_KEPT}{each.name}": word for each in self._look().filters}
        return tuple(f"disk {name}: nothing is believed of what was recorded: {why}" for name, why in doubted.items())

    def keepsakes(self) -> Mapping[str, str]:
        return self._words

    def _look(self) -> Seen:
        return self._filters.look()

    def _chosen(self) -> list[Filter]:
        return [each for each in self._look().filters if each.name not in self._excluded]

    def inventory(self) -> Inventory:
        """Raises ``NotReady`` where a filter that is configured does not stand: there is no point in time of it. Also
        where nobody in the guest can tell what was recorded."""
        seen = self._look()
        if seen.unreadable:
            raise errors.NotReady(f"What filters in the guest record cannot be read: {seen.unreadable}.")
        missing = {name: why for name, why in seen.missing.items() if name not in self._excluded}
        if missing:
            told = "; ".join(f"{name}: {why}" for name, why in missing.items())
            raise errors.NotReady(
                f"Filters in the guest do not stand ({told}). 'headstart-agentd filter up' there, before anything is"
                " mounted, sets them up; what was written meanwhile is found by comparing."
            )
        if not seen.filters:
            raise errors.NotReady(_NOBODY)
        excluded = (each.name for each in seen.filters if each.name in self._excluded)
        return Inventory(
            tuple(_disk(each) for each in seen.filters if each.name not in self._excluded),
            tuple(LeftOut(name, "excluded") for name in excluded),
        )

    def counters(self) -> Counters:
        """Nobody sees from outside what the guest does. Its own figures come through the agent."""
        return Counters(time.monotonic(), None, 1, {})

    # -- marks

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        return {
            each.name: tuple(
                Bitmap(name, recording=True, believed=0 < begun <= each.era, persistent=True)
                for name, begun in each.marks.items()
            )
            for each in self._chosen()
        }

    def transact(self, actions: Sequence[Action]) -> None:
        if not actions:
            return
        seen = self._look()
        start: dict[str, list[str]] = {}
        drop: dict[str, list[str]] = {}
        for action in actions:
            found = seen.of(action.disk)
            if isinstance(action, Start):
                start.setdefault(action.disk, []).append(action.name)
                continue
            _begun(found, action.name)
            if isinstance(action, Remove):
                drop.setdefault(action.disk, []).append(action.name)
        if start or drop:
            self._filters.mark(start, drop)

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        if not any(names.values()):
            return {disk: {} for disk in names}
        seen = self._look()
        return {disk: self._recorded(seen.of(disk), each) for disk, each in names.items()}

    def _recorded(self, found: Filter, names: Sequence[str]) -> dict[str, Blocks]:
        """A mark that something has spoken against since it was seen recorded everything."""
        begun = {name: _begun(found, name) for name in names}
        eras = sorted({era for era in begun.values() if era})
        changed = self._filters.changed(found, eras, self._block_size, self._beat) if eras else {}
        changed[0] = blocks.everything(found.size, self._block_size)
        return {name: changed[era] for name, era in begun.items()}

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return {disk: Blocks().union(*each.values()) for disk, each in self.recorded(names).items()}

    def settle(self, disks: Sequence[str]) -> None:
        """Nothing records as overlays do."""

    def flush(self, disks: Sequence[str]) -> None:
        """The record outlasts a power cut by itself. What it is about might not, and read as before."""
        if disks:
            self._filters.flush(disks)

    def let_move(self) -> bool:
        """Filters go with the guest, wherever it runs."""
        return False

    def let_stay(self) -> None:
        """The same."""

    # -- content

    @contextlib.contextmanager
    def live(self, disks: Sequence[str]) -> Iterator[Mapping[str, LiveReader]]:
        yield {
            each.name: _Live(self.session.device(each.device, each.size))
            for each in self._chosen()
            if each.name in disks
        }

    def take(self, request: PointRequest) -> PointInTime:
        return GuestPoint(self.session, {each.name: each.size for each in self._chosen()}, request, self.recorded)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.session.close()


def _begun(found: Filter, name: str) -> int:
    """Raises ``HeadstartError``."""
    if name not in found.marks:
        raise errors.HeadstartError(f"The filter of disk {found.name} in the guest has no mark {name}.")
    return found.marks[name]


class _Live:
    """``headstart.hypervisor.contract.LiveReader``."""

    uri = ""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def size(self) -> int:
        return self._reader.size

    def read(self, extents: Iterable[Extent]) -> Iterator[Piece]:
        return self._reader.read(extents)

    def allocated(self) -> Iterator[Extent]:
        """The guest would have to be asked what it does not use, and nothing is skipped on its word."""
        yield Extent(0, self.size)


def _disk(found: Filter) -> Disk:
    return Disk(
        name=found.name,
        size=found.size,
        format="raw",
        interface="filter",
        layers=(ImageFile(found.origin, "era"),),
        persistent=True,
        recorder=Recorder.ERA,
        device=found.device,
    )
