"""The watch: a process of its own that ends a job before its scratch space does, and puts right what a dead run left.

Runs as ``python -I watch_process.py CONTROL URI UUID AGENT`` with inherited descriptors: orders arrive on CONTROL,
AGENT (or -1) is a connection to whoever freezes if that is not libvirt. A line of JSON is one order, answered by
another:

=========================================  ==================================================================
 ``{"job": SOCKET, "limits": {FILE: N}}``   a backup job with this socket stands, or is about to; end it when
                                            one of its scratch files has N bytes
 ``{"job": null}``                          it is over
 ``{"frozen": SECONDS, "thaw": HEX}``       the guest is about to be frozen; thaw it after so long, by these
                                            bytes on AGENT or, if there are none, through libvirt
 ``{"frozen": null}``                       it is thawed
 ``{"started": ID}``                        a domain that was off runs by us, without its guest
 ``{"started": null}``                      it is off again
=========================================  ==================================================================

Every answer tells ``{"spilled": FILE or ""}``: which file made us end the job. When CONTROL closes, whatever still
stands is ended: the job, the freeze, the domain.

QEMU pauses a guest whose job finds no room in its scratch file; so files are watched by libvirt's event and by
their sizes, which also tell while libvirt's daemon is away.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

#: How often files are looked at. Of what is reserved, a fifth is left when we act.
LOOK_SECONDS = 0.1
#: How long a daemon that is away is waited for.
PATIENCE_SECONDS = 60.0


class Watch:
    def __init__(self, uri: str, uuid: str, agent: int) -> None:
        self._uri = uri
        self._uuid = uuid
        self._agent = agent
        self._connection: Any = None
        self.job: str | None = None
        self.limits: dict[str, int] = {}
        self.frozen: float | None = None
        self.thaw = b""
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
            seconds = order["frozen"]
            self.frozen = None if seconds is None else time.monotonic() + seconds
            self.thaw = bytes.fromhex(order.get("thaw", ""))
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
        if self.frozen is not None and time.monotonic() >= self.frozen:
            self.thaw_guest()

    def end_job(self) -> bool:
        """Whether libvirt answered. Only a job of ours: between two of them somebody else may have begun one."""

        def end(domain: Any) -> None:
            found = ElementTree.fromstring(domain.backupGetXMLDesc()).find("server")
            if found is not None and found.get("socket") == self.job:
                domain.abortJob()

        return self.do(end)

    def thaw_guest(self) -> None:
        self.frozen = None
        if not self.thaw:
            self.do(lambda domain: domain.fsThaw())
            return
        with contextlib.suppress(OSError):
            os.write(self._agent, self.thaw)

    def shut_off(self) -> None:
        """Unless its owner let the guest run, or started it anew."""

        def end(domain: Any) -> None:
            if domain.ID() == self.started and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)

        self.do(end)

    def finish(self) -> None:
        """The other end is gone."""
        if self.frozen is not None:
            self.thaw_guest()
        if self.job is not None:
            self.end_job()
            for path in (*self.limits, self.job):
                with contextlib.suppress(OSError):
                    Path(path).unlink()
        if self.started is not None:
            self.shut_off()

    def do(self, act: Any) -> bool:
        """Whether the daemon answered in time. Whatever it says, but that it is busy, is an answer: there may be
        nothing to do any longer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._connection is None:
                    self.connect()
                act(self._connection.lookupByUUIDString(self._uuid))
            except libvirt.libvirtError as error:
                if self._connection is None or not self._connection.isAlive():
                    self._connection = None
                elif error.get_error_code() != libvirt.VIR_ERR_OPERATION_TIMEOUT:
                    return True
                time.sleep(LOOK_SECONDS)
            else:
                return True
        return False

    def connect(self) -> None:
        self._connection = libvirt.open(self._uri)
        self._connection.setKeepAlive(5, 6)
        domain = self._connection.lookupByUUIDString(self._uuid)
        event = libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD
        self._connection.domainEventRegisterAny(domain, event, lambda *_: os.write(self._wake, b"!"), None)


def serve_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def heard(control: int) -> bytes:
    """Orders; empty once the other end is closed, with answers that it has not read (``ECONNRESET``) or without."""
    try:
        return os.read(control, 65536)
    except OSError:
        return b""


def main(control: int, uri: str, uuid: str, agent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    threading.Thread(target=serve_events, daemon=True).start()
    watch = Watch(uri, uuid, agent)
    watch.do(lambda _domain: None)
    pending = b""
    while True:
        busy = watch.job is not None or watch.frozen is not None
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
    # Without the teardown of threads that libvirt still serves.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
