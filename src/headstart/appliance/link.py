"""A connection of frames between a host and an appliance, over TLS."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time

from headstart import errors
from headstart.appliance import messages
from headstart.appliance.messages import Decoder, Frame, Kind, Malformed

#: A machine that is gone without a word is noticed within half a minute (tcp(7)).
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 30_000),
)
_RECEIVE = 256 * 1024
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_FAREWELL_SECONDS = 1.0


class Lost(errors.Unreachable):
    """The other end is gone, or does not behave as one of ours."""


def keep_alive(link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        link.setsockopt(socket.IPPROTO_TCP, option, value)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Link:
    """Owns ``link``. ``send`` from any thread; all else from one: a TLS socket serves one thread. A context manager."""

    def __init__(self, link: ssl.SSLSocket) -> None:
        link.setblocking(False)
        self._link = link
        self._decoder = Decoder()
        self._outgoing = bytearray()
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Goes out while somebody polls. Of a link that is closed nothing does."""
        with self._lock:
            if not self._closed:
                self._outgoing += messages.encode(kind, payload)
                os.eventfd_write(self._wake, 1)

    def wake(self) -> None:
        """Whoever polls returns. From any thread."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def poll(self, seconds: float) -> list[Frame]:
        """What has come, as soon as something has or after so long. Raises ``Lost``."""
        self._flush()
        self._wait(seconds)
        self._flush()
        return self._take()

    def finish(self) -> None:
        """Send what there is to be sent, if the other end listens."""
        deadline = time.monotonic() + _FAREWELL_SECONDS
        with contextlib.suppress(Lost):
            while time.monotonic() < deadline and self._flush():
                self._wait(_FAREWELL_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._link.fileno() < 0:
            raise Lost("The connection is closed.")
        if self._link.pending():
            return
        poll = select.poll()
        poll.register(self._link, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        poll.register(self._wake, select.POLLIN)
        if any(descriptor == self._wake for descriptor, _ in poll.poll(seconds * 1000)):
            os.eventfd_read(self._wake)

    def _flush(self) -> bool:
        """Whether something is left."""
        with self._lock:
            while self._outgoing:
                try:
                    sent = self._link.send(self._outgoing)
                except _LATER:
                    return True
                except OSError as error:
                    raise _failed(error) from error
                del self._outgoing[:sent]
        return False

    def _take(self) -> list[Frame]:
        try:
            data = self._link.recv(_RECEIVE)
        except _LATER:
            return []
        except OSError as error:
            raise _failed(error) from error
        if not data:
            raise Lost("The other end closed the connection.")
        try:
            return list(self._decoder.feed(data))
        except Malformed as error:
            raise Lost(f"The other end says nonsense: {error}.") from None

    def fileno(self) -> int:
        return self._link.fileno()

    @property
    def waiting(self) -> bool:
        """There is something to take that no ``select`` tells."""
        return bool(self._link.pending())

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._wake)
        with contextlib.suppress(OSError):
            self._link.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _failed(error: OSError) -> Lost:
    return Lost(f"The connection failed: {error.strerror or error}.")
