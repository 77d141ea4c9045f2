"""What an index keeps in the cache of its host: when it is written, joined, looked through, and given up.

A cache that fails costs memory and time, and nothing else: it is not used any longer by this process.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager
from typing import TypeVar

from headstart.repository.known import Known
from headstart.repository.segment import Segment, Unusable
from headstart.repository.shelf import Shelf
from headstart.repository.stack import Stack

#: What is new is written into the cache when it comes to so many chunks or index objects. Less is read again by the
#: next process.
KEPT_CHUNKS = 1 << 15
KEPT_OBJECTS = 16
#: While index objects are loaded, so many chunks are in memory at most: 35 MB. Larger segments are fewer to join.
LOADED_CHUNKS = 1 << 19
#: While they are loaded, so many segments are not yet joined at most. Each takes two file descriptors.
MOST_SEGMENTS = 128


_Part = TypeVar("_Part", bound=Sized)


class Hoard:
    """``shelf`` None: everything is kept in memory. For one thread at a time, but ``tidy``."""

    def __init__(self, shelf: Shelf | None) -> None:
        self._shelf = shelf
        self._fresh: list[Known] = []  # index objects that no segment has
        # As long as they are used: each has a file open, also one that was removed.
        self._sound: weakref.WeakSet[Segment] = weakref.WeakSet()
        self._unsound: weakref.WeakSet[Segment] = weakref.WeakSet()
        self._tidying = threading.Lock()
        #: Why the cache is not used any longer.
        self.failure: OSError | None = None

    def mount(self, stack: Stack) -> list[Known]:
        """The index objects that the cache has, with all that they list."""
        if self._shelf is None:
            return []
        try:
            segments = self._shelf.segments()
        except OSError as error:
            self._fail(error)
            return []
        for each in segments:
            stack.mount(each)
        objects = {known.name: known for each in segments for known in each.known}
        # Segments that were lost, and a process that died between two of them, leave objects without their packs.
        return [known for known in objects.values() if all(pack_id in stack for pack_id in known.pack_ids())]

    def add(self, known: Known) -> None:
        """An index object that was read or written, and whose packs are in the stack."""
        self._fresh.append(known)

    def forget(self, names: Iterable[str]) -> None:
        gone = set(names)
        self._fresh = [known for known in self._fresh if known.name not in gone]

    def keep(self, stack: Stack, *, loading: bool = False) -> None:
        """Write what is new, if it is enough for that. ``loading``: there is more to come."""
        chunks = len(stack.top)
        enough = chunks >= LOADED_CHUNKS if loading else chunks >= KEPT_CHUNKS or len(self._fresh) >= KEPT_OBJECTS
        if self._shelf is not None and enough:
            self._write(self._shelf, stack)
            if len(stack.mapped) > MOST_SEGMENTS:
                self.tidy(stack, contextlib.nullcontext())

    def _write(self, shelf: Shelf, stack: Stack) -> None:
        try:
            stack.spill(shelf.add(stack.top, self._fresh))
            self._fresh = []
        except (OSError, Unusable) as error:
            self._fail(error)

    def tidy(self, stack: Stack, lock: AbstractContextManager[object]) -> bool:
        """Join segments, so that there are few: each with twice the chunks of all that follow it. Others need not wait:
        ``lock`` is held only to look and to change the stack. False where one of them turns out to be damaged."""
        if self._shelf is None or not self._tidying.acquire(blocking=False):
            return True
        try:
            with lock:
                parts = _to_join(list(self._usable(stack)))
            if parts:
                joined = self._shelf.join(parts)
                with lock:
                    stack.join(parts, joined)
        except Unusable:
            return False
        except OSError as error:
            self._fail(error)
        finally:
            self._tidying.release()
        return True

    def _usable(self, stack: Stack) -> Iterator[Segment]:
        """The segments behind the last that is damaged."""
        segments = _segments(stack)
        found = itertools.takewhile(lambda each: each not in self._unsound, reversed(segments))
        return reversed(list(found))

    def to_look_at(self, stack: Stack, *, again: bool) -> list[Segment]:
        """Segments of which it is not known whether they are sound; ``again``: those that were once may not be now."""
        known = self._unsound if again else self._sound | self._unsound
        return [each for each in _segments(stack) if each not in known]

    def looked(self, sound: Iterable[Segment], unsound: Sequence[Segment]) -> None:
        """What came of it."""
        self._sound.update(sound)
        self._unsound.update(unsound)
        self.remove(unsound)

    def remove_all(self, stack: Stack) -> None:
        self.remove(_segments(stack))

    def remove(self, segments: Sequence[Segment]) -> None:
        """For all later processes."""
        try:
            if self._shelf is not None and segments:
                self._shelf.remove(segments)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._shelf = None
        self.failure = error if isinstance(error, OSError) else OSError(str(error))


def _segments(stack: Stack) -> list[Segment]:
    return [each for each in stack.mapped if isinstance(each, Segment)]


def _to_join(parts: Sequence[_Part]) -> Sequence[_Part]:
    """The longest end of ``parts`` that begins with one that is too small."""
    after = 0
    first = len(parts)
    for place in reversed(range(len(parts))):
        if after and len(parts[place]) < 2 * after:
            first = place
        after += len(parts[place])
    return parts[first:]
