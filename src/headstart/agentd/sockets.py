"""The channel to the host over sockets: whoever says the right HELLO in time is the host, the last one of them counts.

::

    listener  ->  Guest in the anteroom: TLS, HELLO, secret; 5 s   ->  the host, instead of the one before

TLS is not here, but in ``tls``: it costs memory.
"""

import select
import socket
import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Type

from headstart.agentd import frames, messages, usage
from headstart.agentd.frames import Buffer, Decoder
from headstart.agentd.links import Gone, Link

#: From connecting to a HELLO that is right.
ADMISSION_SECONDS = 5.0
#: Connections that are not admitted yet; one more ends the oldest.
WAITING = 8
#: Until a HELLO is complete: a preamble, and what comes before and after it.
_PREFACE = 4 * frames.TO_GUEST
#: What begins like a frame and is none costs a checksum each.
_FALSE_FRAMES = 16
#: A dead host is noticed after 30 + 3 * 10 s.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
#: Data that nobody confirms: milliseconds.
_UNCONFIRMED = 60000

#: The errors by which a socket says that it would have to wait.
Later = Tuple[Type[BaseException], ...]
#: What a HELLO says, told right or wrong.
Admits = Callable[[Dict[str, Any]], bool]
#: Makes a connection that begins with a handshake of a plain one.
Wrap = Callable[[socket.socket], socket.socket]


def vsock(port: int = messages.VSOCK_PORT) -> socket.socket:
    """Raises ``OSError``: no vsock in this kernel or this Python."""
    family = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise OSError("this Python has no vsock")
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((getattr(socket, "VMADDR_CID_ANY", 0xFFFFFFFF), port))
        listener.listen(WAITING)
    except OSError:
        listener.close()
        raise
    return listener


#: The hypervisor's side of vsock (vsock(7)).
HOST_CID = 2


def is_host(peer: Tuple[int, int]) -> bool:
    """Of vsock: no program in this guest, and no other guest."""
    return peer[0] == HOST_CID


def tcp(address: str) -> socket.socket:
    """``ADDRESS:PORT``, ``[ADDRESS]:PORT``. Raises ``OSError``, ``ValueError``."""
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(WAITING)
    except OSError:
        listener.close()
        raise
    return listener


def is_anybody(peer: Any) -> bool:
    return True


def keep_alive(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18), _UNCONFIRMED)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Connection:
    """One peer."""

    def __init__(self, connected: socket.socket, later: Later, now: float) -> None:
        connected.setblocking(False)
        self.socket = connected
        self._later = later
        self._decoder = Decoder(frames.TO_GUEST, _FALSE_FRAMES)
        self._shaken = not hasattr(connected, "do_handshake")
        self.deadline = now + ADMISSION_SECONDS
        #: What has come before it was admitted, with the HELLO.
        self.heard = bytearray()

    def knock(self, admits: Admits) -> bool:
        """Whether it may come in. Raises ``Gone``: it may not."""
        if not self._shake():
            return False
        while len(self.heard) < _PREFACE:
            data = self.receive(_PREFACE)
            if data is None:
                return False
            if data == b"":
                raise Gone("it went away")
            self.heard += data
            for frame in self._decoder.feed(data):
                if frame.kind == messages.HELLO:
                    return self._require(frame.payload, admits)
            if self._decoder.hopeless:
                break
        raise Gone("it says no HELLO")

    @staticmethod
    def _require(hello: bytes, admits: Admits) -> bool:
        try:
            told = messages.unpack_json(hello)
        except messages.Malformed as error:
            raise Gone(str(error)) from None
        if not admits(told):
            raise Gone("it does not know the secret")
        return True

    def _shake(self) -> bool:
        if not self._shaken:
            try:
                getattr(self.socket, "do_handshake")()  # noqa: B009
            except self._later:
                return False
            except (OSError, ValueError) as error:
                raise Gone(str(error)) from None
            self._shaken = True
        return True

    def receive(self, count: int) -> Optional[bytes]:
        try:
            return self.socket.recv(count)
        except self._later:
            return None
        except OSError as error:
            raise Gone(str(error)) from None

    def send(self, data: Buffer) -> int:
        """All of it, or as much as is taken. TLS takes a record at a time."""
        view = memoryview(data)
        try:
            while view:
                view = view[self.socket.send(view) :]
        except self._later:
            pass
        except OSError as error:
            raise Gone(str(error)) from None
        return len(data) - len(view)

    def pending(self) -> bool:
        """Content that the kernel has handed over already."""
        return self._shaken and bool(getattr(self.socket, "pending", int)())


class Server(Link):
    """A link to whoever was admitted last."""

    once = False

    def __init__(
        self,
        listener: socket.socket,
        may_knock: Callable[[Any], bool],
        admits: Admits,
        wrap: Optional[Wrap] = None,
        later: Later = (BlockingIOError,),
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._may_knock = may_knock
        self._admits = admits
        self._wrap = wrap
        self._later = later
        self._waiting: List[Connection] = []
        self._host: Optional[Connection] = None
        self._stalled = False
        # One descriptor for all of them: readable when one of them has something.
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        return self._poll.fileno()

    @property
    def due(self) -> Optional[float]:
        return min((each.deadline for each in self._waiting), default=None)

    def pending(self) -> bool:
        late = self.due is not None and self.due <= time.monotonic()
        return late or (self._host is not None and (bool(self._host.heard) or self._host.pending()))

    def read(self, count: int) -> Optional[bytes]:
        ready = {number for number, _ in self._poll.poll(0)}
        if self._listener.fileno() in ready:
            self._accept()
        self._admit(ready)
        host = self._host
        if host is None:
            return None
        if host.heard:
            heard = bytes(host.heard)
            host.heard.clear()
            return heard
        if self._stalled and host.socket.fileno() in ready:
            self._stalled = False
            self._poll.modify(host.socket.fileno(), select.EPOLLIN)
        data: Optional[bytes] = self._from_host(host.receive, count)
        if data == b"":
            self._part()
        # Empty: nobody is at the other end.
        return data

    def write(self, data: Buffer) -> int:
        host = self._host
        if host is None:
            # What is left for a host that is gone.
            return len(data)
        count: int = self._from_host(host.send, data)
        if self._wrap is not None:
            usage.OWN.sent_bytes += count
        if count < len(data) and not self._stalled:
            self._stalled = True
            self._poll.modify(host.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return count

    def _from_host(self, call: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return call(argument)
        except Gone:
            self._part()
            raise

    def _part(self) -> None:
        if self._host is not None:
            self._end(self._host)
            self._host = None
            self._stalled = False

    def _accept(self) -> None:
        try:
            connected, peer = self._listener.accept()
        except OSError:
            return
        if not self._may_knock(peer):
            connected.close()
            return
        try:
            if self._wrap is not None:
                keep_alive(connected)
                connected = self._wrap(connected)
            found = Connection(connected, self._later, time.monotonic())
            self._poll.register(connected.fileno(), select.EPOLLIN)
        except (OSError, ValueError):
            connected.close()
            return
        self._waiting.append(found)
        if len(self._waiting) > WAITING:
            self._dismiss(self._waiting[0])

    def _admit(self, ready: Set[int]) -> None:
        for each in list(self._waiting):
            due = each.socket.fileno() in ready or each.pending()
            try:
                admitted = due and each.knock(self._admits)
            except Gone:
                self._dismiss(each)
                continue
            if admitted:
                self._waiting.remove(each)
                self._replace(each)
            elif time.monotonic() >= each.deadline:
                self._dismiss(each)

    def _dismiss(self, one: Connection) -> None:
        self._waiting.remove(one)
        self._end(one)

    def _replace(self, newer: Connection) -> None:
        if self._host is not None:
            self._end(self._host)
        self._host = newer
        self._stalled = False

    def _end(self, connection: Connection) -> None:
        self._poll.unregister(connection.socket.fileno())
        connection.socket.close()

    def close(self) -> None:
        for each in self._waiting + ([self._host] if self._host else []):
            self._end(each)
        self._poll.close()
        self._listener.close()
