"""From the backup to real storage, while the VM runs: QEMU mirrors each disk into a new image, and goes on there.

::

    guest -> overlay -> NBD: the snapshot     guest -> overlay + new image (each write to both)     guest -> new image

A read or a write that fails holds the job and not the guest; it is tried again until it works, or we are ended.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from headstart import errors, plain
from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.qemu import inventory, jobs
from headstart.hypervisor.qemu.graph import Devices
from headstart.hypervisor.qemu.inventory import Attachment
from headstart.restore.booting.hold import PATIENCE_SECONDS, Hold
from headstart.restore.booting.marks import Marks
from headstart.wire.qmp import CommandFailed, Qmp

_log = logging.getLogger(__name__)

#: ``progress(what, done, total)`` in bytes.
Progress = Callable[[str, int, int], None]

POLL_SECONDS = 0.1
#: After a request that failed.
RETRY_SECONDS = 5.0


def attachments(qmp: Qmp) -> dict[str, Attachment]:
    """The running VM's disks by their names."""
    return {each.disk.name: each for each in inventory.look(qmp, Devices(qmp), ()).attachments}


def described(qmp: Qmp) -> Inventory:
    return inventory.inventory(qmp, inventory.look(qmp, Devices(qmp), ()))


def move(
    qmp: Qmp,
    hold: Hold,
    images: Mapping[str, Path],
    marks: Marks | None,
    progress: Progress,
    attend: Callable[[], None],
    moved: Callable[[], None] = lambda: None,
) -> None:
    """Each disk into its image, which is made; all of them go over when all are ready, so that the overlays have
    everything until then. ``marks`` go along; ``attend`` is called again and again. When it fails, or is interrupted,
    the disks that have not gone over stay where they are, and their images are removed.

    The guest stands still while they go over, so that the overlays, and the images, are of one moment: it goes on after
    ``moved``, and where it fails before any has gone over; not at all when it fails in between (``hold``)."""
    found = attachments(qmp)
    moves = [_Move(qmp, found[disk], image) for disk, image in images.items()]

    def carry() -> None:
        for each in moves:
            each.carry(marks)

    go_over(moves, progress, attend, hold, carry)
    for each in moves:
        each.forget_old()
    below = [node.name for node in inventory.look(qmp, Devices(qmp), ()).graph.nodes.values() if node.driver == "nbd"]
    if below:
        raise errors.HeadstartError(f"The VM has moved, and still reads from the backup (node {below[0]}).")
    moved()
    hold.end()


class Move(Protocol):
    """Of one disk, to a new image."""

    @property
    def gone_over(self) -> bool:
        """It has, or it cannot be found out. Not to be asked between ``complete`` and ``give_up``."""

    def begin(self) -> None: ...

    def is_ready(self, progress: Progress) -> bool:
        """It could go over. One that failed is begun again after a while."""

    def complete(self) -> None:
        """It goes over."""

    def give_up(self) -> None:
        """Unless it has gone over."""


def go_over(
    moves: Sequence[Move],
    progress: Progress,
    attend: Callable[[], None],
    hold: Hold,
    carry: Callable[[], None] = lambda: None,
) -> None:
    """All of them when all are ready, after ``carry``, while the guest is held. It is still when this has worked, and
    where it failed with a part of them over."""
    try:
        for each in moves:
            each.begin()
        while False in [each.is_ready(progress) for each in moves]:
            attend()
            time.sleep(POLL_SECONDS)
        carry()
        hold.begin()
        hold.gone_over = True
        for each in moves:
            each.complete()
    except BaseException as error:
        # Whoever is being ended ends the VM as well.
        _undo(moves, hold, PATIENCE_SECONDS if isinstance(error, errors.HeadstartError) else 0)
        raise


def _undo(moves: Sequence[Move], hold: Hold, seconds: float) -> None:
    """As far as none has gone over."""
    with contextlib.ExitStack() as steps:
        for each in reversed(moves):
            steps.callback(each.give_up)
        if not hold.gone_over:
            # Also so that it is a VM which answers that is asked to give up.
            _let_go_on(hold, seconds)
    hold.gone_over = any(each.gone_over for each in moves)
    if not hold.gone_over:
        _let_go_on(hold, seconds)


def _let_go_on(hold: Hold, seconds: float) -> None:
    with contextlib.suppress(errors.HeadstartError):
        hold.end(seconds)


class _Move:
    """A ``Move`` by QEMU's own job."""

    def __init__(self, qmp: Qmp, attachment: Attachment, image: Path) -> None:
        self._qmp = qmp
        self._attachment = attachment
        self._image = image
        # The name stays in QEMU for as long as it runs.
        self._node = self._job = f"headstart-moved-{secrets.token_hex(4)}"
        self._disk = attachment.disk.name
        self._begun = self._completing = self.gone_over = False
        self._tried = 0.0

    def begin(self) -> None:
        self._make()
        self._begun = True
        self._mirror()

    def carry(self, marks: Marks | None) -> None:
        if marks is not None:
            marks.carry(self._qmp, self._disk, self._attachment.tracked, self._node)

    def complete(self) -> None:
        self._completing = True
        self._qmp.execute("job-complete", id=self._job)
        failure = jobs.wait(self._qmp, self._job)
        if failure:
            raise errors.HeadstartError(f"Disk {plain.line(self._disk)} cannot be moved: {plain.joined(failure)}.")
        self.gone_over = True
        self._qmp.execute("job-dismiss", id=self._job)

    def forget_old(self) -> None:
        for name in dict.fromkeys((self._attachment.root, self._attachment.tracked)):
            # Of a -drive they have gone by themselves.
            with contextlib.suppress(CommandFailed):
                self._qmp.execute("blockdev-del", node_name=name)

    def _make(self) -> None:
        size = str(self._attachment.disk.size)
        descriptor = self._image.open("xb")
        descriptor.close()
        self._image.chmod(0o600)
        done = subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", str(self._image), size],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            self._image.unlink(missing_ok=True)
            raise errors.TargetRefused(
                f"{self._image} cannot be made: {plain.joined(done.stderr.strip())}. Move to another place.",
                target=str(self._image),
            )

    def _mirror(self) -> None:
        file = {"driver": "file", "filename": str(self._image), "discard": "unmap"}
        # With unmap QEMU need not write the zeroes of a new image.
        self._qmp.execute("blockdev-add", driver="qcow2", node_name=self._node, file=file, discard="unmap")
        self._qmp.execute(
            "blockdev-mirror",
            job_id=self._job,
            device=self._attachment.root,
            target=self._node,
            sync="full",
            copy_mode="write-blocking",
            on_source_error="stop",
            on_target_error="stop",
            auto_dismiss=False,
        )

    def is_ready(self, progress: Progress) -> bool:
        """The new image has all that the old one has, and gets each write. Raises ``HeadstartError`` if it cannot."""
        job = self._look()
        progress(f"moving {self._disk}", int(job["offset"]), int(job["len"]))
        if job["io-status"] != "ok" and time.monotonic() - self._tried > RETRY_SECONDS:
            self._retry(str(job["io-status"]), first=not self._tried)
            self._tried = time.monotonic()
        # One that was ready once is "ready" for QEMU also while a write holds it: its status is "standby" then.
        return bool(job["ready"] and job["status"] == "ready" and job["io-status"] == "ok")

    def _retry(self, status: str, *, first: bool) -> None:
        if first:
            what = "there is no room for it" if status == "nospace" else "a request failed"
            again = f"it is tried again every {RETRY_SECONDS:.0f} s"
            _log.warning("moving disk %s stands still, as %s; %s", plain.line(self._disk), what, again)
        else:
            with contextlib.suppress(CommandFailed):
                self._qmp.execute("block-job-resume", device=self._job)

    def _look(self) -> Mapping[str, Any]:
        for job in self._qmp.execute("query-block-jobs"):
            if job["device"] == self._job and job.get("status") not in ("concluded", "aborting", "null"):
                found: Mapping[str, Any] = job
                return found
        _, failure = jobs.status(self._qmp, self._job)
        why = plain.joined(failure) or "somebody cancelled it"
        raise errors.HeadstartError(f"Disk {plain.line(self._disk)} cannot be moved: {why}.")

    def give_up(self) -> None:
        """Unless it has gone over. An image that QEMU has still is in use, and stays."""
        if not self._begun or self.gone_over:
            return
        with contextlib.suppress(errors.HeadstartError):
            jobs.end(self._qmp, self._job)
        self.gone_over = self._completing and self._is_there()
        if self.gone_over:
            return
        try:
            self._qmp.execute("blockdev-del", node_name=self._node)
        except CommandFailed as error:
            if "in use" in error.text:
                return
        except errors.HeadstartError:
            pass  # it has ended
        self._image.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        """The disk stands on the new image, or nobody tells."""
        try:
            found = attachments(self._qmp).get(self._disk)
        except errors.HeadstartError:
            return True
        return found is not None and found.root == self._node
