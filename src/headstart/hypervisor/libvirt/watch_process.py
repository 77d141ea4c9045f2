"""The watch: a process of its own that ends a job before its scratch space does, and puts right what a dead run left.

Runs as ``python -I watch_process.py CONTROL URI UUID AGENT`` with inherited descriptors: orders arrive on CONTROL,
AGENT (or -1) is a connection to whoever freezes if that is not libvirt. A line of JSON is one order, answered by
another:

=========================================  ==================================================================
 ``{"job": SOCKET, "limits": {FILE: N}}``   a backup job with this socket stands, or is about to; end it when
                                            one of its scratch files has N bytes
 ``{"job": null}``                          it is over
 ``{"frozen": SECONDS, "thaw": HEX,         the guest is about to be frozen; thaw it after so long, by these
 "note": FILE}``                            bytes on AGENT or, if there are none, through libvirt. The file,
                                            if any, goes when that is done for good
 ``{"frozen": null}``                       it is thawed
 ``{"started": ID}``                        a domain that was off runs by us, without its guest
 ``{"started": null}``                      it is off again
=========================================  ==================================================================

Every answer tells ``{"spilled": FILE or ""}``: which file made us end the job. When the other end of CONTROL is shut,
whatever still stands is ended: the job, the freeze, the domain. Ours closes when of these at most the freeze is left: a
guest agent that is still freezing answers no order to thaw, and is given it again and again.

QEMU pauses a guest whose job finds no room in its scratch file; so files are watched by libvirt's event and by
their sizes, which also tell while libvirt's daemon is away.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

#: How often files are looked at. Of what is reserved, a fifth is left when we act.
LOOK_SECONDS = 0.1
#: How long a daemon that is away is waited for.
PATIENCE_SECONDS = 60.0
#: How long a guest agent that does not answer is ordered to thaw: a sync of a busy guest takes minutes. Then the note
#: is for the next run.
THAW_SECONDS = 600.0
#: Between these orders; libvirt waits 5 s for an answer to each.
AGAIN_SECONDS = 1.0

_NO_ANSWER = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_AGENT_UNRESPONSIVE)


class Link:
    """To the domain; for one thread."""

    def __init__(
        self, uri: str, uuid: str, listen: Callable[[Any, Any], None] = lambda _connection, _domain: None
    ) -> None:
        """``listen`` is called with each new connection."""
        self._uri = uri
        self._uuid = uuid
        self._listen = listen
        self._connection: Any = None

    def do(self, act: Callable[[Any], object], patience: float = PATIENCE_SECONDS, pause: float = LOOK_SECONDS) -> bool:
        """Whether the daemon answered in time. Whatever it says, but that it or the guest agent is busy, is an answer:
        there may be nothing to do any longer."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if self._connection is None:
                    self._connect()
                act(self._connection.lookupByUUIDString(self._uuid))
            except libvirt.libvirtError as error:
                if self._connection is None or not self._connection.isAlive():
                    self._connection = None
                elif error.get_error_code() not in _NO_ANSWER:
                    return True
                time.sleep(pause)
            else:
                return True
        return False

    def _connect(self) -> None:
        self._connection = libvirt.open(self._uri)
        self._connection.setKeepAlive(5, 6)
        self._listen(self._connection, self._connection.lookupByUUIDString(self._uuid))


@dataclass(slots=True, eq=False)
class Freeze:
    """The guest is frozen, or about to be. ``over``: it was, and is thawed, or is frozen anew."""

    deadline: float
    thaw: bytes
    note: str
    over: bool = False


class Watch:
    def __init__(self, uri: str, uuid: str, agent: int) -> None:
        self._agent = agent
        self.link = Link(uri, uuid, self.listen)
        #: libvirt's answer to an order to thaw may take minutes, in which a job has to be watched.
        self._thawing_link = Link(uri, uuid)
        self.thawing: threading.Thread | None = None
        self.job: str | None = None
        self.limits: dict[str, int] = {}
        self.frozen: Freeze | None = None
        self.started: int | None = None
        self.spilled = ""
        #: libvirt has ended the job for us, or knows none.
        self.ended = False
        #: Written to when an event arrives, so that the loop looks at once.
        self.woken, self._wake = os.pipe()

    # -- orders

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if "job" in order:
            self.job, self.limits = order["job"], order.get("limits", {})
            if self.job is not None:
                self.spilled, self.ended = "", False
        if "frozen" in order:
            if self.frozen is not None:
                self.frozen.over = True  # an order to thaw that is still given would undo the next freeze
            self.frozen = None if order["frozen"] is None else _freeze(order)
        if "started" in order:
            self.started = order["started"]
        return {"spilled": self.spilled}

    # -- what to do

    def look(self) -> None:
        if self.job is not None and not self.spilled:
            for path, limit in self.limits.items():
                with contextlib.suppress(OSError):
                    if Path(path).stat().st_size >= limit:
                        self.spilled = path
        if self.job is not None and self.spilled and not self.ended:
            self.ended = self.end_job()
        if self.frozen is not None and time.monotonic() >= self.frozen.deadline:
            self.thaw_guest(self.frozen)

    def end_job(self) -> bool:
        """Whether libvirt answered. Only a job of ours: between two of them somebody else may have begun one."""

        def end(domain: Any) -> None:
            found = ElementTree.fromstring(domain.backupGetXMLDesc()).find("server")
            if found is not None and found.get("socket") == self.job:
                domain.abortJob()

        return self.link.do(end)

    def thaw_guest(self, freeze: Freeze, *, last: bool = False) -> None:
        """``last``: whoever freezes is gone. Else, where nothing is frozen yet, the freeze may come still."""
        freeze.deadline = math.inf
        if freeze.thaw:
            freeze.over = True
            with contextlib.suppress(OSError):
                os.write(self._agent, freeze.thaw)
            return
        before = self.thawing

        def thaw(domain: Any) -> None:
            if not freeze.over and (domain.fsThaw() or last):
                freeze.over = True
                forget(freeze.note)

        def run() -> None:
            if before is not None:
                before.join()
            if not freeze.over:
                self._thawing_link.do(thaw, THAW_SECONDS, AGAIN_SECONDS)

        self.thawing = threading.Thread(target=run, daemon=True)
        self.thawing.start()

    def shut_off(self) -> None:
        """Unless its owner let the guest run, or started it anew."""

        def end(domain: Any) -> None:
            if domain.ID() == self.started and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)

        self.link.do(end)

    def finish(self) -> None:
        """The other end is gone. What is left then is ``thawing``."""
        if self.frozen is not None and not self.frozen.over:
            self.thaw_guest(self.frozen, last=True)
        if self.job is not None:
            self.end_job()
            for path in (*self.limits, self.job):
                with contextlib.suppress(OSError):
                    Path(path).unlink()
        if self.started is not None:
            self.shut_off()

    def listen(self, connection: Any, domain: Any) -> None:
        event = libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD
        connection.domainEventRegisterAny(domain, event, lambda *_: os.write(self._wake, b"!"), None)


def _freeze(order: dict[str, Any]) -> Freeze:
    deadline = time.monotonic() + order["frozen"]
    return Freeze(deadline, bytes.fromhex(order.get("thaw", "")), order.get("note", ""))


def serve_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def heard(control: int) -> bytes:
    """Orders; empty once the other end is closed, with answers that it has not read (``ECONNRESET``) or without."""
    try:
        return os.read(control, 65536)
    except OSError:
        return b""


def forget(note: str) -> None:
    """What the guest's owner freezes from now on, nobody of ours thaws."""
    if note:
        with contextlib.suppress(OSError):
            Path(note).unlink()


def step_aside(control: int) -> None:
    """Nobody is kept waiting for our end."""
    os.close(control)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def main(control: int, uri: str, uuid: str, agent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    threading.Thread(target=serve_events, daemon=True).start()
    watch = Watch(uri, uuid, agent)
    watch.link.do(lambda _domain: None)
    pending = b""
    while True:
        busy = watch.job is not None or (watch.frozen is not None and watch.frozen.deadline < math.inf)
        ready = select.select([control, watch.woken], [], [], LOOK_SECONDS if busy else None)[0]
        if watch.woken in ready:
            os.read(watch.woken, 4096)
        if control in ready:
            data = heard(control)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                answer = watch.obey(json.loads(line))
                # Who gave the order may have died since: what it left is ended all the same, when its end is heard.
                with contextlib.suppress(OSError):
                    os.write(control, json.dumps(answer).encode() + b"\n")
        watch.look()
    watch.finish()
    if watch.thawing is not None:
        step_aside(control)
        watch.thawing.join()
    # Without the teardown of threads that libvirt still serves.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
