"""Two actors on one store, in every order of the steps of theirs that matter.

Each actor has a thread and stops before each of these steps, until it is let go on. Only one runs at a time, so the
same choices give the same course; all choices there are, are taken one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from headstart.store.contract import Data, Locks, Store

#: Method and prefix of keys.
Step = tuple[str, str]
_PATIENCE = 60.0


class Actor:
    """``act`` gets a store of its own. The first ``skipped`` steps do not matter, nor what comes after ``most`` more.
    What it raises is in ``error``."""

    def __init__(
        self,
        store: Store,
        steps: Sequence[Step],
        act: Callable[[Store], object],
        *,
        skipped: int = 0,
        most: int = 1 << 30,
    ) -> None:
        self.error: BaseException | None = None
        self.taken: list[str] = []
        self._store = _Gated(store, steps, self._stop)
        self._act = act
        self._skipped = skipped
        self._most = most
        self._there = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._done = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> bool:
        """Whether it stands before a step, and has not ended."""
        self._thread.start()
        return self._arrived()

    def go_on(self) -> bool:
        self._go.release()
        return self._arrived()

    def _arrived(self) -> bool:
        assert self._there.acquire(timeout=_PATIENCE), f"it hangs after {self.taken}"
        return not self._done

    def _stop(self, step: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        if len(self.taken) == self._most:
            return
        self._there.release()
        assert self._go.acquire(timeout=_PATIENCE)
        self.taken.append(step)

    def _run(self) -> None:
        try:
            self._act(self._store)
        except BaseException as error:
            self.error = error
        self._done = True
        self._there.release()


class _Gated:
    def __init__(self, inner: Store, steps: Sequence[Step], stop: Callable[[str], None]) -> None:
        self._inner = inner
        self._steps = steps
        self._stop = stop

    def _reach(self, method: str, key: str) -> None:
        if any(method == wanted and key.startswith(prefix) for wanted, prefix in self._steps):
            self._stop(f"{method} {key}")

    def create(self, key: str, data: Data) -> None:
        self._reach("create", key)
        self._inner.create(key, data)

    def read(self, key: str) -> bytes:
        return self._inner.read(key)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._inner.read_range(key, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self._reach("list", prefix)
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._reach("delete", key)
        self._inner.delete(key)

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        self._reach("modified", prefix)
        return self._inner.modified(prefix)

    def clock(self) -> float:
        return self._inner.clock()

    def locks(self) -> Locks | None:
        return self._inner.locks()

    @property
    def window(self) -> int:
        return self._inner.window

    @property
    def host(self) -> str:
        return self._inner.host


@dataclass
class Choices:
    """Which of those that wait goes on, each time; the next course differs in the last one that can."""

    _chosen: list[int] = field(default_factory=list)
    _among: list[int] = field(default_factory=list)
    _place: int = 0

    def of(self, count: int) -> int:
        if self._place == len(self._chosen):
            self._chosen.append(0)
            self._among.append(count)
        self._place += 1
        return self._chosen[self._place - 1]

    def advance(self) -> bool:
        """Whether there is another course."""
        while self._chosen and self._chosen[-1] == self._among[-1] - 1:
            self._chosen.pop()
            self._among.pop()
        if self._chosen:
            self._chosen[-1] += 1
        self._place = 0
        return bool(self._chosen)


def run(choices: Choices, actors: Sequence[Actor]) -> list[str]:
    """One course: the steps as they were taken. The actors begin one after the other."""
    waiting = [each for each in actors if each.begin()]
    course: list[str] = []
    while waiting:
        chosen = waiting[choices.of(len(waiting)) if len(waiting) > 1 else 0]
        if not chosen.go_on():
            waiting.remove(chosen)
        course.append(chosen.taken[-1])
    return course
