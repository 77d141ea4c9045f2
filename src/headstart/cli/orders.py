"""What one command asks of another that attends to a booted VM: to move it. By the daemon's way of asking."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class _Order:
    directory: Path
    tell: control.Tell
    done: Future[dict[str, Any]] = field(default_factory=Future)

    def report(self, what: str, done: int, total: int) -> None:
        # Who asked may have gone: the work goes on.
        with contextlib.suppress(OSError):
            self.tell({"progress": {"what": what, "done": done, "total": total}})


class Orders:
    """Taken on threads of their own, carried out by the one that has the VM."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Order] = queue.SimpleQueue()

    def put(self, order: _Order) -> dict[str, Any]:
        self._waiting.put(order)
        return order.done.result()

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
            order.done.set_exception(errors.Unreachable("The command that had booted the VM was ended."))
            raise
        return True


@contextlib.contextmanager
def taken(folder: Path, snapshot: str) -> Iterator[Orders]:
    """While this lasts, ``ask`` finds us in the folder of the VM's sockets."""
    orders = Orders()

    def handle(request: Mapping[str, Any], tell: control.Tell) -> dict[str, Any]:
        if request["snapshot"] != snapshot:
            raise errors.Usage(f"The VM of this name runs from snapshot {snapshot}: take another --name.")
        return orders.put(_Order(Path(request["to"]), tell))

    with control.Server(control.address(folder), handle):
        yield orders


def ask(folder: Path, snapshot: str, directory: Path, progress: Progress) -> dict[str, Any]:
    """Raises ``Absent`` where nobody attends to such a VM, and what moving raises."""
    found: dict[str, Any] = control.ask(folder, {"snapshot": snapshot, "to": str(directory)}, progress)
    return found
