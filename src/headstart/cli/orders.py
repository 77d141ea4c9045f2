"""What one command asks of another that attends to a booted VM: to move it. By the daemon's way of asking."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.host import control
from headstart.restore.booting.moving import Progress

Move = Callable[[Path, Progress], dict[str, Any]]

#: Seconds between two reports of how far it is: also while there is nothing new, for who asks waits only so long.
TELL_SECONDS = 0.5


@dataclass(slots=True)
class _Order:
    directory: Path
    done: Future[dict[str, Any]] = field(default_factory=Future)
    reached: tuple[str, int, int] = ("preparing", 0, 0)

    def report(self, what: str, done: int, total: int) -> None:
        self.reached = (what, done, total)


class Orders:
    """Taken on threads of their own, carried out by the one that has the VM."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Order] = queue.SimpleQueue()

    def put(self, directory: Path, tell: control.Tell) -> dict[str, Any]:
        """Who asked may go: the work goes on."""
        order = _Order(directory)
        self._waiting.put(order)
        while not concurrent.futures.wait((order.done,), TELL_SECONDS).done:
            what, done, total = order.reached
            tell({"progress": {"what": what, "done": done, "total": total}})
        return order.done.result()

    def refuse(self) -> None:
        """Nobody is there to carry them out."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait().done.set_exception(_ended())

    def carry_out(self, move: Move) -> bool:
        """Whether there was one, and it was done; one that fails is told to who asked."""
        try:
            order = self._waiting.get_nowait()
        except queue.Empty:
            return False
        try:
            order.done.set_result(move(order.directory, order.report))
        except errors.HeadstartError as error:
            order.done.set_exception(error)
            return False
        except BaseException:
            order.done.set_exception(_ended())
            raise
        return True


def _ended() -> errors.Unreachable:
    return errors.Unreachable("The command that had booted the VM was ended.")


@contextlib.contextmanager
def taken(folder: Path, snapshot: str, how: Mapping[str, Any]) -> Iterator[Orders]:
    """While this lasts, ``ask`` finds us in the folder of the VM's sockets. ``how``: what the options said of how to
    start it, by name."""
    orders = Orders()

    def handle(request: Mapping[str, Any], tell: control.Tell) -> dict[str, Any]:
        if request["snapshot"] != snapshot:
            raise errors.Usage(f"The VM of this name runs from snapshot {snapshot}: take another --name.")
        if others := [f"--{each}" for each, value in request["how"].items() if how[each] != value]:
            said = f"The VM of this name runs, and was started with another {', '.join(others)}"
            raise errors.Usage(f"{said}: leave that out, or take another --name.")
        return orders.put(Path(request["to"]), tell)

    with control.Server(control.address(folder), handle):
        try:
            yield orders
        finally:
            orders.refuse()


def ask(folder: Path, snapshot: str, directory: Path, how: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """``how``: of the options of ``taken`` those that were given. Raises ``Absent`` where nobody attends to such a VM,
    and what moving raises."""
    request = {"snapshot": snapshot, "to": str(directory), "how": dict(how)}
    found: dict[str, Any] = control.ask(folder, request, progress)
    return found
