"""Exports of QEMU's NBD server, each for as short as it is needed.

QEMU has one NBD server. If somebody else runs it, we leave it alone: stopping it would end their
exports, and its address is not told.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart import errors
from headstart.hypervisor import names
from headstart.hypervisor.qemu import scratch
from headstart.wire import nbd
from headstart.wire.qmp import CommandFailed, Qmp

#: ``sun_path`` of unix(7), less the terminating zero.
SOCKET_PATH_LIMIT = 107
#: An export goes when its last request is answered.
REMOVAL_SECONDS = 30.0
PROBE_SECONDS = 1.0
#: Flag of a listening socket (Linux, include/uapi/linux/net.h).
SO_ACCEPTCON = 1 << 16


class Exports:
    """Our use of one QEMU's NBD server, on a socket of ours."""

    def __init__(self, qmp: Qmp, installation: str, path: Path) -> None:
        if len(str(path)) > SOCKET_PATH_LIMIT:
            raise errors.Usage(
                f"The scratch directory's path is too long for a socket: {path}. Choose a shorter --scratch."
            )
        self._qmp = qmp
        self._installation = installation
        self._socket = path
        self._users = 0

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """The server runs inside; nested uses share it."""
        if self._users == 0:
            self._start()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self._stop()

    def _start(self) -> None:
        address = {"type": "unix", "data": {"path": str(self._socket)}}
        try:
            self._qmp.execute("nbd-server-start", addr=address)
        except CommandFailed as error:
            if "already running" in error.text:
                raise errors.Busy(
                    f"Another tool runs the NBD server of this QEMU{self._whose()} (there is only one)."
                    " Wait until it is done, or end it with nbd-server-stop."
                ) from error
            raise errors.Unreachable(
                f"QEMU cannot open a socket at {self._socket}: {error.text}. {scratch.REMEDY}"
            ) from error

    def _whose(self) -> str:
        """As far as what it exports tells."""
        found = [export["id"] for export in self._qmp.execute("query-block-exports")]
        whose = sorted({names.owner(each) or f"it exports {each}" for each in found})
        return f" ({'; '.join(whose)})" if whose else ""

    def _stop(self) -> None:
        # The socket stays as long as the server may: by it the next contact knows the server for ours.
        with contextlib.suppress(errors.HeadstartError):
            self._qmp.execute("nbd-server-stop")
        if not self._listens():
            self._socket.unlink(missing_ok=True)

    @contextlib.contextmanager
    def offered(
        self, node: str, role: str, *, writable: bool = False, bitmaps: Sequence[str] = (), depth: bool = False
    ) -> Iterator[nbd.Export]:
        """``node`` can be opened inside. The server has to run. ``depth``: it tells in which layer something is."""
        name = names.node(self._installation, role)
        self._qmp.call(
            "block-export-add",
            {
                "type": "nbd",
                "id": name,
                "node-name": node,
                "name": name,
                "writable": writable,
                "bitmaps": list(bitmaps),
                "allocation-depth": depth,
            },
        )
        try:
            yield nbd.Export(self._socket, name)
        finally:
            # With QEMU gone, so is the export; what was read of it, was read.
            with contextlib.suppress(errors.Unreachable):
                remove(self._qmp, name)

    def leftover_server(self, *, known: bool) -> bool:
        """Stop the server if a dead run of ours left it running; somebody else's is left alone.

        ``known``: there was an export of ours, and we make them on no other server than ours."""
        ours = known or self._listens() or str(self._socket) in _listening()
        if ours:
            self._qmp.execute("nbd-server-stop")
        self._socket.unlink(missing_ok=True)
        return ours

    def _listens(self) -> bool:
        """QEMU listens on our socket, where nobody but us would have put its server. A file alone tells
        nothing: it also stays behind when QEMU is killed."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_SECONDS)
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
            return True


def _listening() -> set[str]:
    """Paths of the sockets that somebody on this machine listens on, also where the file was removed
    (proc(5), /proc/net/unix: flags, type, state, inode, path)."""
    lines = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {fields[7] for fields in lines if len(fields) == 8 and int(fields[3], 16) & SO_ACCEPTCON}


def remove(qmp: Qmp, name: str) -> None:
    """End an export, also under its clients, and wait until it is gone. Gone already is fine."""
    mark = qmp.mark
    try:
        qmp.execute("block-export-del", id=name, mode="hard")
    except CommandFailed:
        if not any(export["id"] == name for export in qmp.execute("query-block-exports")):
            return
    gone = qmp.wait_event(
        lambda event: event["event"] == "BLOCK_EXPORT_DELETED" and event["data"]["id"] == name,
        REMOVAL_SECONDS,
        mark,
    )
    if gone is None:
        raise errors.Busy(f"QEMU does not let go of the NBD export {name}.")
