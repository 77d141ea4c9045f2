"""The VM's way to another QEMU: nothing of ours may stand in it then.

What QEMU 7.2 does when a migration meets something of ours (measured):

====================  ==================================================================================
a filter, its scratch  ``bdrv_inactivate_all() failed`` at the switchover: the guest goes on here
an exported bitmap     with the capability ``dirty-bitmaps`` the migration fails when it begins
a view's bitmap        with it, all bitmaps are gone on the other side
an export of a disk    nothing; what is read after the switchover may be old, and the marks tell so
====================  ==================================================================================

So nothing is begun while one runs, and what stands when one begins is taken away at once. Switching over comes
after all memory was sent: that is the time we have.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from headstart import errors
from headstart.hypervisor import guard_process
from headstart.hypervisor.contract import Migrating
from headstart.hypervisor.guard import Order
from headstart.wire.qmp import Qmp

#: States of ``query-migrate`` in which nothing moves (QEMU's qapi/migration.json, MigrationStatus).
STILL = frozenset({"none", "cancelled", "completed", "failed", "colo", ""})
#: A look takes a third of a millisecond; the smallest guests are sent in 100 ms.
POLL_SECONDS = 0.05
#: Where only disks are read, nothing is in a migration's way: it is but left to have the host to itself.
EASY_POLL_SECONDS = 0.5

_ELSEWHERE = (
    "The VM was migrated away from this QEMU: its disks are in use elsewhere, and nothing of them may be touched here."
    " End this QEMU, and let the socket's path lead to the monitor of the other one."
)
_COMING = "This QEMU waits for a VM that is to be migrated to it: try again when it has arrived."
_MOVING = "The VM is being migrated ({}): wait until it has arrived."


def require_here(qmp: Qmp) -> None:
    """Raises ``Migrating`` where the guest is not in this QEMU, but already or still in another one."""
    match qmp.execute("query-status")["status"]:
        case "postmigrate":
            raise Migrating(_ELSEWHERE)
        case "inmigrate":
            raise Migrating(_COMING)


def require_still(qmp: Qmp) -> None:
    """Raises ``Migrating`` also while the VM is on its way."""
    require_here(qmp)
    status = qmp.execute("query-migrate").get("status", "")
    if status not in STILL:
        raise Migrating(_MOVING.format(status))


class Watch:
    """While it lasts, a migration that begins finds nothing of ours any longer. A context manager.

    ``let_go`` takes everything of ours out of QEMU, on a thread of the watch's, again and again until whoever works
    with it has noticed. It must be able to go on beside that."""

    def __init__(self, qmp: Qmp, let_go: Callable[[], object], poll_seconds: float) -> None:
        self._qmp = qmp
        self._poll_seconds = poll_seconds
        self._let_go = let_go
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="migration watch", daemon=True)
        self._lock = threading.Lock()
        self._thaw: Order | None = None
        self.begun = False

    def _run(self) -> None:
        while not self._over.wait(self._poll_seconds):
            with contextlib.suppress(errors.HeadstartError):
                self.begun = self.begun or self._moves()
                if self.begun:
                    self._order_thaw()
                    self._let_go()

    def _moves(self) -> bool:
        """A short one may be over at the next look."""
        try:
            require_still(self._qmp)
        except Migrating:
            return True
        return False

    def _order_thaw(self) -> None:
        """Once the guest is on the other side, nobody reaches it through the channels of this one."""
        with self._lock:
            order, self._thaw = self._thaw, None
            if order is not None:
                guard_process.send(order.descriptor, order.message)

    @contextlib.contextmanager
    def thawing(self, order: Order | None) -> Iterator[None]:
        """Inside, the guest may be frozen: then ``order`` thaws it."""
        with self._lock:
            self._thaw = order
        try:
            yield
        finally:
            with self._lock:
                self._thaw = None

    def failure(self, usual: Callable[[str], errors.HeadstartError]) -> Callable[[str], errors.HeadstartError]:
        """What a read that fails is told as."""
        return lambda message: self._lost() if self.begun else usual(message)

    def require_still(self) -> None:
        """Raises ``Migrating`` if one has begun, be it over or not."""
        if self.begun:
            raise self._lost()

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """What fails inside because we let go is told as that."""
        try:
            yield
        except errors.HeadstartError as error:
            if self.begun and not isinstance(error, Migrating):
                lost = self._lost()
                lost.facts.update(error.facts)
                raise lost from error
            raise

    @staticmethod
    def _lost() -> Migrating:
        return Migrating("A migration of the VM began, so it was let go of at once: wait until it has arrived.")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
