"""What keeps a VM on overlays of ours from being migrated behind our back.

The QEMU that a VM goes to opens the chain of overlays when it is started. An overlay that is put on, or committed,
between then and the VM's arrival it does not know: what the guest wrote to the new one would be missing there. When it
was started nobody here can tell. So as long as overlays come and go QEMU refuses to migrate, at once and with our
node's name in what it says; and while it may migrate, none comes and none goes.

::

    first overlay      'vm move'                 arrived: another QEMU, which has no node of ours
    ----|===============|-----------------------|    ----|==============
          blocked          free: no rounds begin           blocked again

QEMU's refusal is that of its block driver ``vpc``, whose images cannot be migrated (``migrate_add_blocker`` in
block/vpc.c). It is all or nothing: with a migration under way the node cannot be added. Both nodes end with QEMU.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from headstart import errors
from headstart.hypervisor.contract import Migrating
from headstart.wire.qmp import CommandFailed, Qmp

#: Words of a command line that forbid what blocks a migration, and so forbid overlays.
_FORBIDDING = frozenset(
    {"-only-migratable", "--only-migratable", "migration.only-migratable=on", "migration.only-migratable=true"}
)


class Anchor:
    """Of one running QEMU."""

    def __init__(self, qmp: Qmp, installation: str, file: Path) -> None:
        """``file``: where an image can be for a moment, which QEMU can open."""
        self._qmp = qmp
        self._file = file
        self._blocks, self._free = f"headstart-{installation}-vm-move-1st", free_node(installation)

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self._blocks, self._free})

    @property
    def is_free(self) -> bool:
        """It may be migrated: its owner said so."""
        return self._free in self._nodes()

    def hold(self) -> None:
        """QEMU refuses to migrate from now on. Raises ``Migrating`` where it may do so, or does."""
        there = self._nodes()
        if self._free in there:
            raise Migrating(
                "The VM was made ready to be migrated ('headstart vm move'), and so no round begins. That ends with its"
                " arrival in another QEMU, or with 'headstart vm stay'."
            )
        if self._blocks not in there:
            self._block()

    def _block(self) -> None:
        self._file.unlink(missing_ok=True)
        done = subprocess.run(
            ["qemu-img", "create", "-q", "-f", "vpc", str(self._file), "1M"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise errors.NoSpace(f"{self._file} cannot be made: {done.stderr.strip()}")
        try:
            self._file.chmod(0o644)
            file = {"driver": "file", "filename": str(self._file), "read-only": True}
            self._qmp.execute("blockdev-add", driver="vpc", node_name=self._blocks, read_only=True, file=file)
        except CommandFailed as error:
            if "in progress" in error.text:
                raise Migrating("The VM is being migrated: wait until it has arrived.") from error
            raise errors.Unsupported(
                f"QEMU cannot be kept from migrating while overlays of ours come and go: {error.text}. Let changes be"
                " learned by bitmaps instead: 'headstart vm set NAME --track bitmap'."
            ) from error
        finally:
            self._file.unlink(missing_ok=True)

    def lift(self) -> None:
        """Nothing of ours keeps it from migrating, or is to be kept from beginning."""
        for node in self.names & self._nodes():
            self._qmp.execute("blockdev-del", node_name=node)

    def free(self) -> None:
        """It may migrate; and ``hold`` is refused."""
        there = self._nodes()
        if self._free not in there:
            self._qmp.execute("blockdev-add", driver="null-co", node_name=self._free, size=0)
        if self._blocks in there:
            self._qmp.execute("blockdev-del", node_name=self._blocks)

    def _nodes(self) -> frozenset[str]:
        return frozenset(node["node-name"] for node in self._qmp.execute("query-named-block-nodes", flat=True))


def free_node(installation: str) -> str:
    """The node that tells that a VM may be migrated."""
    return f"headstart-{installation}-may-move"


def is_forbidden(command_line: str) -> bool:
    """QEMU was started so that nothing may keep it from migrating."""
    return not _FORBIDDING.isdisjoint(command_line.split())
