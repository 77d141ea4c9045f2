"""The process that carries one disk between a host and an appliance: bytes, and TLS around them.

Started by ``headstart.appliance.relay`` with inherited descriptors and few modules, so that it is up in milliseconds::

    SIDE LINK PLAIN OWN PEER [EXPORT]

LINK is the connection between the two machines, PLAIN goes to the NBD server (on a host) or to the NBD client (on an
appliance); OWN and PEER are files, a key with its certificate and the one certificate of the other end. Standard input
has a line with the secret of this disk, which a host says first inside of TLS; when it ends, so does the process.

Nothing waits for it but this one connection, and it holds one buffer for each direction: an appliance that stalls keeps
answers of the NBD server waiting, and nothing else.
"""

from __future__ import annotations

import contextlib
import hmac
import select
import socket
import ssl
import sys
from pathlib import Path

from headstart.appliance.gate import Forbidden, Gate

HOST, APPLIANCE = "host", "appliance"
HANDSHAKE_SECONDS = 10.0
SECRET_LENGTH = 64
#: Each direction.
BUFFER = 256 * 1024
LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def context(own: Path, peer: Path, *, serves: bool) -> ssl.SSLContext:
    """TLS 1.3 with one certificate as the only authority. Raises ``OSError``, ``ValueError``."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(own)
    made.load_verify_locations(peer)
    return made


def main(side: str, link: socket.socket, plain: socket.socket, files: tuple[Path, Path], export: str = "") -> None:
    secret = sys.stdin.readline().strip().encode()
    link.settimeout(HANDSHAKE_SECONDS)
    with context(*files, serves=side == APPLIANCE).wrap_socket(link, server_side=side == APPLIANCE) as tls:
        if side == HOST:
            tls.sendall(secret)
            _Pump(tls, plain, Gate(export.encode())).run()
        elif hmac.compare_digest(_received(tls), secret):
            _Pump(tls, plain, None).run()
        else:
            sys.exit("Whoever brought the disk does not know its secret.")


def _received(tls: ssl.SSLSocket) -> bytes:
    said = b""
    while len(said) < SECRET_LENGTH and (more := tls.recv(SECRET_LENGTH - len(said))):
        said += more
    return said


class _Way:
    """One direction. ``part`` is what has come and is not sent yet."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(BUFFER))
        self.part = self._room[:0]

    def take(self, source: socket.socket) -> bool:
        """As much as there is and finds room (TLS gives a record at a time). Whether the source goes on."""
        count = 0
        while count < BUFFER:
            try:
                more = source.recv_into(self._room[count:])
            except LATER:
                break
            if not more:
                return False
            count += more
            if not isinstance(source, ssl.SSLSocket):
                break
        self.part = self._room[:count]
        return True

    def give(self, target: socket.socket) -> None:
        with contextlib.suppress(*LATER):
            while self.part:
                self.part = self.part[target.send(self.part) :]


class _Pump:
    def __init__(self, tls: ssl.SSLSocket, plain: socket.socket, gate: Gate | None) -> None:
        tls.setblocking(False)
        plain.setblocking(False)
        self._tls = tls
        self._plain = plain
        self._gate = gate
        self._inward, self._outward = _Way(), _Way()
        #: What the gate answers itself.
        self._answers = b""

    def run(self) -> None:
        """Until either end is gone, or nobody wants it any longer. Raises ``Forbidden``, ``OSError``."""
        while self._send() and self._receive() and self._wait():
            pass

    def _send(self) -> bool:
        out = self._outward
        if not out.part and self._answers:
            out.part, self._answers = memoryview(self._answers), b""
        if not out.part and not out.take(self._plain):
            return False
        out.give(self._tls)
        return True

    def _receive(self) -> bool:
        way = self._inward
        if not way.part and not self._answers:
            if not way.take(self._tls):
                return False
            if self._gate is not None:
                passed = list(self._gate.feed(way.part))
                way.part = memoryview(b"".join(each.to_server for each in passed))
                self._answers = b"".join(each.to_client for each in passed)
        way.give(self._plain)
        return True

    def _wait(self) -> bool:
        """Until something can go on. Whether it is still wanted."""
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        full, waiting = self._inward.part or self._answers, self._outward.part or self._answers
        for end, events in (
            (self._tls, (0 if full else select.POLLIN) | (select.POLLOUT if waiting else 0)),
            (self._plain, (0 if waiting else select.POLLIN) | (select.POLLOUT if self._inward.part else 0)),
        ):
            if events:  # the end of a connection would be told all the same, again and again
                poll.register(end, events)
        at_once = self._tls.pending() and not full
        return all(descriptor != sys.stdin.fileno() for descriptor, _ in poll.poll(0 if at_once else None))


def run(words: list[str]) -> None:
    side, link, plain, own, peer, *export = words
    ends = socket.socket(fileno=int(link)), socket.socket(fileno=int(plain))
    try:
        main(side, *ends, (Path(own), Path(peer)), "".join(export))
    except (OSError, ValueError) as error:
        sys.exit(f"The relay of a disk failed: {error}.")
    except Forbidden as error:
        sys.exit(f"The relay of a disk ended, because the other end asked for {error}.")
