"""Filters in a guest, as agentd tells them: values, and what can be asked of them. See ``agentd.filtering``.

The guest's word, so everything is checked: it can lie about its own disks, and do nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart import blocks, errors, plain
from headstart.agentd.filters import GRAIN, NAME
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.guest.channel import Channel, Lost
from headstart.units import BLOCK_SIZE

#: A guest has fewer.
_MOST = 256
_MOST_MARKS = 4096
#: How long the guest may take to let all writes come to their end, and to write that down.
CHANGE_SECONDS = 60.0
#: How long reading the record may take without a word; and, of each era, until all is told.
RECORD_SECONDS, TOLD_SECONDS = 300.0, 900.0
#: Ranges that notes of changes have on average, where there are many notes. An agent tells 4,000 at a time.
_RANGES = 1000
#: How long a point in time may stand at most, should neither we nor the channel end.
HOLD_SECONDS = 86400.0
_LONGEST_NAME = 64
#: See ``blocks``.
_LARGEST = BLOCK_SIZE << 32
#: What has a place in a report, a database and a float.
_MOST_COUNTED = 1 << 63


@dataclass(frozen=True, slots=True)
class Filter:
    """``marks``: the era from which on each records; ``era`` is the present one. ``device`` is the kernel's name of
    what the guest uses; ``cow_bytes``: room for old content while a point in time stands; ``metadata``: blocks used of
    those there are."""

    name: str
    id: str
    size: int
    origin: str
    device: str
    era: int
    marks: Mapping[str, int]
    cow_bytes: int
    metadata: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """``missing``: why filters do not stand that are configured. ``unreadable``: why their records cannot be read, if
    so; ``forgets``: what is in them may get lost in a crash."""

    filters: tuple[Filter, ...]
    missing: Mapping[str, str]
    unreadable: str = ""
    forgets: bool = False

    def of(self, name: str) -> Filter:
        """Raises ``NotFound``."""
        found = next((each for each in self.filters if each.name == name), None)
        if found is None:
            why = self.missing.get(name, "it is not configured there")
            raise errors.NotFound(f"The guest has no filter '{name}' any longer: {why}.", disk=name)
        return found


@dataclass(frozen=True, slots=True)
class Room:
    """For old content of a disk, in bytes. Not ``valid``: there was too little."""

    valid: bool
    used: int
    total: int


class Filters:
    """What can be asked. Raises ``Lost`` and ``Refused``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def look(self) -> Seen:
        told = self._channel.ask("filters", CHANGE_SECONDS)
        try:
            found = told["filters"]
            if len(found) > _MOST:
                raise ValueError("too many filters")
            standing = tuple(_filter(each) for each in found if not each["missing"])
            missing = {_name(each["name"]): _text(each["missing"]) for each in found if each["missing"]}
            names = [*missing, *(each.name for each in standing)]
            if len(set(names)) != len(names):
                raise ValueError("two filters of one name")
            unreadable, forgets = _text(told.get("unreadable", "")), bool(told.get("forgets"))
            if told["grain"] != GRAIN:
                raise ValueError("another grain")
            return Seen(standing, missing, unreadable, forgets)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Lost(f"The agent in the guest answered nonsense about its filters: {error}") from None

    def greet(self, installation: str, kept: Mapping[str, str], word: str) -> Mapping[str, str]:
        """Why marks of a filter are not believed any longer, by filter."""
        told = self._channel.ask("greet", CHANGE_SECONDS, installation=installation, kept=dict(kept), word=word).get(
            "doubted", {}
        )
        if not isinstance(told, dict):
            raise Lost("The agent in the guest answered nonsense about its filters.")
        return {plain.line(str(name), _LONGEST_NAME): _text(why) for name, why in list(told.items())[:_MOST]}

    def mark(self, start: Mapping[str, Sequence[str]], drop: Mapping[str, Sequence[str]]) -> None:
        """All of ``start`` at one moment. What is dropped is dropped before."""
        self._channel.ask("marks", CHANGE_SECONDS, start=_lists(start), drop=_lists(drop))

    def changed(
        self, found: Filter, since: Sequence[int], block_size: int, beat: Callable[[], None] = lambda: None
    ) -> dict[int, Blocks]:
        """By era, what was written then or later, as of some moment after the call. ``beat`` is called all the time,
        and may raise."""
        changed = {era: Blocks() for era in since}
        #: Ranges ascend, and few notes have few of them: so they come to an end.
        ends, notes, count = dict.fromkeys(since, 0), 0, 0
        deadline = time.monotonic() + TOLD_SECONDS * max(1, len(changed))
        request = self._channel.start("changes", filter=found.name, since=sorted(changed))
        try:
            while True:
                told = self._channel.answer(request, RECORD_SECONDS)
                if "ended" in told:
                    return changed
                beat()
                era, ranges = told["since"], told["ranges"]
                reported = [_extent(each, GRAIN, found.size) for each in ranges]
                notes, count = notes + 1, count + len(reported)
                if notes > 2 * len(changed) + count // _RANGES or any(
                    begin < end for (begin, _), (_, end) in zip(ranges, [(0, ends[era]), *ranges], strict=False)
                ):
                    raise ValueError("ranges without an end")
                if time.monotonic() > deadline:
                    raise Lost(f"The agent in the guest has not told all that was written in {TOLD_SECONDS:.0f} s.")
                ends[era] = ranges[-1][1] if ranges else ends[era]
                changed[era] |= blocks.of_extents(reported, block_size)
        except (KeyError, TypeError, ValueError) as error:
            raise Lost(f"The agent in the guest answered nonsense about what was written: {error}") from None
        finally:
            self._channel.forget(request)

    def flush(self, names: Sequence[str]) -> None:
        """What has been written to these until now outlasts a power cut, as the record of it does."""
        self._channel.ask("flush", CHANGE_SECONDS, filters=list(names))

    def hold(self, names: Sequence[str], start: Mapping[str, Sequence[str]]) -> Hold:
        """A point in time of these, where ``start`` begin."""
        request = self._channel.start("hold", filters=list(names), start=_lists(start), limit=HOLD_SECONDS)
        try:
            told = self._channel.answer(request, CHANGE_SECONDS)
            stands = told["stands"]
            devices = {name: _text(stands[name]["device"]) for name in names}
            return Hold(self._channel, request, devices, _seconds(told["seconds"]))
        except (KeyError, TypeError, ValueError) as error:
            self._channel.cancel(request)
            raise Lost(f"The agent in the guest answered nonsense about a point in time: {error}") from None
        except BaseException:
            self._channel.forget(request)
            raise


class Hold:
    """A point in time that stands in the guest. ``devices`` show it; ``seconds`` is how long nothing was written."""

    def __init__(self, channel: Channel, request: int, devices: Mapping[str, str], seconds: float) -> None:
        self._channel = channel
        self._request = request
        self.devices = devices
        self.seconds = seconds

    def rooms(self) -> dict[str, Room]:
        """By filter; of those that have none the point in time is lost. Raises ``Lost``, ``Refused``."""
        told = self._channel.ask("held", CHANGE_SECONDS)
        try:
            return {
                _name(name): Room(bool(each["valid"]), _count(each["used"]), _count(each["total"]))
                for name, each in told["held"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Lost(f"The agent in the guest answered nonsense about a point in time: {error}") from None

    def release(self) -> None:
        """Raises ``Lost``, ``Refused``."""
        try:
            self._channel.ask("release", CHANGE_SECONDS)
        finally:
            self._channel.forget(self._request)


def _filter(told: Mapping[str, Any]) -> Filter:
    """Raises what a guest's nonsense raises."""
    marks = told["marks"]
    if len(marks) > _MOST_MARKS:
        raise ValueError("too many marks")
    used, total = told["metadata"]
    return Filter(
        _name(told["name"]),
        _text(told["id"]),
        _size(told["size"]),
        _text(told["origin"]),
        _text(told["device"]),
        _count(told["era"]),
        {str(name): _count(era) for name, era in marks.items()},
        _count(told["cow"]),
        (_count(used), _count(total)),
    )


def _name(told: object) -> str:
    """As it goes into manifests, and names files of a restore."""
    if not isinstance(told, str) or not NAME.match(told):
        raise ValueError("a name that is none")
    return told


def _text(told: object) -> str:
    return plain.joined(str(told))


def _count(told: object) -> int:
    if not isinstance(told, int) or not 0 <= told < _MOST_COUNTED:
        raise ValueError("no number")
    return told


def _seconds(told: object) -> float:
    """Of a point in time that stood no longer than any may."""
    if not isinstance(told, int | float) or not 0 <= told <= HOLD_SECONDS:
        raise ValueError("no time")
    return float(told)


def _positive(told: object) -> int:
    if not _count(told):
        raise ValueError("a number that is zero")
    return _count(told)


def _size(told: object) -> int:
    """More blocks than have numbers are none of a disk."""
    if _positive(told) >= _LARGEST:
        raise ValueError("a size that no disk has")
    return _positive(told)


def _extent(told: Sequence[int], grain: int, size: int) -> Extent:
    begin, end = told
    start, stop = _count(begin) * grain, min(_count(end) * grain, size)
    if start >= stop:
        raise ValueError("a range that is none")
    return Extent(start, stop - start)


def _lists(marks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {name: list(each) for name, each in marks.items()}
