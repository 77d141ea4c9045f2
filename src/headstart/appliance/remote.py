"""The host's end of one round at one appliance. It has the key of the repository and is one of ours, but what it says
is looked at all the same: an answer counts only for what was asked of it, and once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart import __version__, blocks, errors, plain, units
from headstart.appliance import messages, relay
from headstart.appliance.addresses import Address
from headstart.appliance.link import Link, Lost
from headstart.appliance.messages import Frame, Kind, Malformed
from headstart.appliance.plug import Plug
from headstart.appliance.relay import Relay, Ticket
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import Repository

#: To greet, and to take a disk.
ANSWER_SECONDS = 20.0
#: Nothing for this long while something is asked of it means that it is gone, or hangs.
SILENCE_SECONDS = 60.0
#: One that gets on more slowly is of no use.
LEAST_RATE = 512 << 10


class Refused(Lost):
    """It said that it cannot. ``code`` is one of ``messages``."""

    def __init__(self, name: str, code: str, text: str) -> None:
        super().__init__(f"The appliance at {name} refused: {text}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Delivered:
    """Blocks that an appliance says are durable, and their chunks; None for zeroes."""

    disk: int
    stored: Sequence[tuple[int, bytes | None]]
    packs: Sequence[str] = ()


@dataclass(slots=True)
class _Disk:
    size: int
    #: None: nothing brings it.
    way: Relay | Plug | None
    #: Asked for, and not said to be durable.
    owed: Blocks = field(default_factory=Blocks)


class Remote:
    """One thread. A context manager. Every method raises ``Lost`` when it is of no use any longer."""

    def __init__(self, address: Address, repo: Repository, *, trial: bool = False) -> None:
        """``trial``: what it reads is stored nowhere."""
        self.name = address.name
        self._address = address
        self._block_size = repo.block_size
        self._disks: dict[int, _Disk] = {}
        #: Requests that are not read yet: bytes, and when each has to be.
        self._reading: dict[int, float] = {}
        self._number = 0
        self._flush_by: float | None = None
        #: Came while something else was waited for.
        self._early: list[Delivered] = []
        self._heard = time.monotonic()
        #: Of the last flush: what it stored, and what that cost it.
        self.flushed: dict[str, Any] = {}
        self._link = address.connect()
        try:
            greeting = {"protocols": messages.PROTOCOLS, "release": __version__, "repository": repo.id, "trial": trial}
            self._link.send(Kind.HELLO, messages.pack_json(greeting))
            self._await(Kind.WELCOME)
        except BaseException:
            self.close()
            raise

    @property
    def link(self) -> Link:
        return self._link

    @property
    def relays(self) -> list[int]:
        """Process ids of what brings it the disks."""
        return [each.way.process_id for each in self._disks.values() if isinstance(each.way, Relay)]

    def offer(self, disk: int, size: int, uri: str) -> None:
        """Bring it a disk by the number that ``ask`` will name; again, in the place of what was brought before."""
        found = self._disks.setdefault(disk, _Disk(size, None))
        if found.way is not None:
            found.way.close()
            found.way = None
        if self._address.monitor is not None:
            found.way = plug = Plug(self._address.monitor, uri)
            self._link.send(Kind.OFFER, messages.pack_json({"disk": disk, "size": size, "device": plug.serial}))
            self._await(Kind.OPENED)
            return
        ticket = Ticket.new()
        told = {"disk": disk, "size": size, "token": ticket.token, "secret": ticket.secret}
        self._link.send(Kind.OFFER, messages.pack_json(told))
        self._await(Kind.READY)
        found.way = relay.bring(self._address.plain(), uri, self._address.keys, ticket)
        self._await(Kind.OPENED)

    @property
    def unread(self) -> int:
        """Requests that it has still to read."""
        return len(self._reading)

    def ask(self, disk: int, extents: Sequence[Extent]) -> None:
        """Whole blocks, that were not asked of it before."""
        now = time.monotonic()
        if not self._reading:
            self._heard = now
        begins = max([now, *self._reading.values()])
        length = sum(each.length for each in extents)
        self._number += 1
        self._reading[self._number] = begins + SILENCE_SECONDS + length / LEAST_RATE
        self._disks[disk].owed |= blocks.of_extents(extents, self._block_size)
        self._link.send(Kind.READ, messages.pack_read(disk, self._number, extents))

    def owed(self, disk: int) -> Blocks:
        found = self._disks.get(disk)
        return found.owed if found is not None else Blocks()

    def flush(self) -> None:
        """Everything that it has read is to become durable: ``settled`` when it has."""
        held = sum(len(each.owed) for each in self._disks.values()) * self._block_size
        self._heard = time.monotonic()
        self._flush_by = max([self._heard, *self._reading.values()]) + SILENCE_SECONDS + held / LEAST_RATE
        self._link.send(Kind.FLUSH)

    @property
    def settled(self) -> bool:
        return self._flush_by is None and not self._reading

    def hear(self, seconds: float) -> list[Delivered]:
        """What is durable now."""
        found, self._early = self._early, []
        try:
            for frame in self._link.poll(seconds):
                self._heard = time.monotonic()
                found += self._sort(frame)
        except Malformed as error:
            raise Lost(f"The appliance at {self.name} says nonsense: {error}.") from None
        except Lost as error:
            raise self._explained(error) from error
        if not found:
            self._require_progress()
        return found

    def _explained(self, error: Lost) -> Lost:
        if isinstance(error, Refused):
            return error
        said = f"The appliance at {self.name} is lost: {error}"
        words = [each.way.last_words() for each in self._disks.values() if isinstance(each.way, Relay)]
        return Lost(" ".join([said, *filter(None, words)]))

    def _sort(self, frame: Frame) -> Iterable[Delivered]:
        match frame.kind:
            case Kind.STORED:
                disk, stored = messages.unpack_stored(frame.payload)
                self._settle(disk, stored)
                return [Delivered(disk, stored)]
            case Kind.PACKS:
                return [Delivered(0, (), messages.unpack_packs(frame.payload))]
            case Kind.READING:
                self._require(messages.unpack_progress(frame.payload)[0] in self._reading)
            case Kind.READ_ALL:
                request, _ = messages.unpack_progress(frame.payload)
                self._require(self._reading.pop(request, None) is not None)
            case Kind.FLUSHED:
                self._require(self._flush_by is not None and not self._reading)
                self.flushed, self._flush_by = messages.unpack_json(frame.payload), None
                if any(each.owed for each in self._disks.values()):
                    raise Lost(f"The appliance at {self.name} left out a part of what was asked for.")
            case Kind.REFUSAL:
                raise self._refusal(frame)
            case _:
                self._require(False)
        return ()

    def _settle(self, disk: int, stored: Sequence[tuple[int, bytes | None]]) -> None:
        """Only what is owed, and once."""
        found = self._disks.get(disk)
        told = Blocks(block for block, _ in stored)
        if found is None or len(told) != len(stored) or not told <= found.owed:
            self._require(False)
            return
        found.owed -= told

    def _require(self, expected: bool) -> None:
        if not expected:
            raise Lost(f"The appliance at {self.name} answers something else than what was asked for.")

    def _refusal(self, frame: Frame) -> Refused:
        told = messages.unpack_json(frame.payload)
        return Refused(self.name, str(told.get("code", "")), plain.line(str(told.get("text", "")), 300))

    def _require_progress(self) -> None:
        now = time.monotonic()
        deadlines = [*self._reading.values(), *([self._flush_by] if self._flush_by is not None else [])]
        if not deadlines:
            return
        if now > self._heard + SILENCE_SECONDS:
            raise Lost(f"The appliance at {self.name} has not answered for {SILENCE_SECONDS:.0f} s.")
        if now > min(deadlines):
            raise Lost(f"The appliance at {self.name} does less than {units.format_bytes(LEAST_RATE)} a second.")

    def _await(self, kind: Kind) -> None:
        deadline, come = time.monotonic() + ANSWER_SECONDS, False
        try:
            while not come and (rest := deadline - time.monotonic()) > 0:
                for frame in self._link.poll(rest):
                    if frame.kind is kind:
                        come = True
                    else:
                        self._early += self._sort(frame)
            if come:
                return
        except Malformed as error:
            raise Lost(f"The appliance at {self.name} says nonsense: {error}.") from None
        except Lost as error:
            raise self._explained(error) from error
        raise Lost(f"The appliance at {self.name} has not answered for {ANSWER_SECONDS:.0f} s.")

    def close(self) -> None:
        self._link.close()
        for each in self._disks.values():
            if each.way is not None:
                with contextlib.suppress(OSError, errors.HeadstartError):
                    each.way.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
