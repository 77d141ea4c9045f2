"""A session with agentd: requests out, frames in. See docs/agent-protocol.md.

The guest is not trusted: every answer has a deadline, a frame has a limit, and whatever does not belong
to a request of this session is thrown away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headstart import errors, plain
from headstart.agentd import frames, messages, release
from headstart.agentd.frames import Frame
from headstart.agentd.messages import Span

#: How long agentd may take to answer at all.
HELLO_SECONDS = 5.0
#: A HELLO may be lost with the end of a broken frame that agentd was waiting for.
HELLO_AGAIN_SECONDS = 0.5
ASK_SECONDS = 10.0
CANCEL_SECONDS = 5.0
#: Nothing for this long, although something could be sent, means that the agent is gone. It runs at the lowest
#: priority there is: a busy guest makes it slow.
SILENCE_SECONDS = 30.0
#: After this long we ask whether the session is still known: a guest that was reset knows nothing of it.
PROBE_SECONDS = 1.0
#: Who waits for a frame calls ``Channel.attend`` when nothing has come for this long.
ATTEND_SECONDS = 0.25
#: Receives without waiting at a time: a guest that floods us must not keep us.
_AT_ONCE = 64
#: Content under way or in our hands.
WINDOW = 8 << 20
#: Credit is granted in portions: each costs a frame.
PORTION = 1 << 20
#: A stream that is damaged more often is not a stream of agentd's.
DAMAGE_LIMIT = 16
#: Memory, beside that for content, for frames that nobody has asked for yet. A request has a few thousand at most.
UNREAD_LIMIT = 4 << 20
_FRAME_COST = 256
#: What comes and belongs to nothing that was asked for, in bytes: so much at once, as after a session that ended in the
#: middle of something, and so much more a second. Looking at it takes time, and other VMs wait for that.
USELESS_LIMIT = 16 << 20
USELESS_RATE = 256 << 10
_RECEIVE = 256 * 1024
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lost(errors.Unreachable):
    """The agent does not answer (any longer), or not as an agent would."""


class Mismatch(Lost):
    """The agent speaks another protocol. It can be talked to as far as its renewal goes (``agentd.release``)."""


class Refused(errors.HeadstartError):
    """The agent answered that it cannot. ``code`` is one of ``agentd.messages``."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"The agent in the guest refused: {text or code}.", code=code)
        self.code = code


class Channel:
    """Owns ``link``. One thread at a time; ``consumed`` from any. A context manager.

    ``attend`` is called by whoever waits in ``frame`` whenever nothing has come of its request for ``ATTEND_SECONDS``.
    It may take what ``newest`` has, may not wait for the guest, and may raise: that ends the wait of the caller, whose
    request goes on until it is cancelled. Not by ``ask``: what is done in a moment is not left without its answer."""

    def __init__(
        self, link: socket.socket, *, secret: str = "", seconds: float = HELLO_SECONDS, any_protocol: bool = False
    ) -> None:
        """Raises ``Lost`` when nobody answers, or (``Mismatch``) nobody that we understand.

        ``any_protocol``: for who may renew the agent; ``require_protocol`` has then to be called later."""
        self._link = link
        self._session = secrets.randbits(64)
        self._decoder = frames.Decoder(frames.FROM_GUEST, DAMAGE_LIMIT)
        self._inbox: dict[int, deque[Frame]] = {}
        self._number = 0
        self.attend: Callable[[], None] = lambda: None
        self._reads: set[int] = set()
        #: Requests of whose NOTEs only the newest one is kept.
        self._followed: set[int] = set()
        #: When something came last, or was asked for because nothing came.
        self._heard = time.monotonic()
        # Content: allowed and not yet received; received and not yet consumed.
        self._outstanding = self._held = 0
        # What the frames in the inbox cost beside that.
        self._unread = 0
        # What came for nothing, less what may have come since it was counted last.
        self._useless = 0.0
        self._counted = time.monotonic()
        #: Seconds that somebody waited for a request although it was the agent's turn.
        self._waited: dict[int, float] = {}
        self._counting = threading.Lock()
        # A TLS socket serves one thread: whoever consumes wakes that one.
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        link.setblocking(False)
        try:
            self.welcome = self._hello(secret, seconds)
            if not any_protocol:
                self.require_protocol()
        except BaseException:
            self.close()
            raise

    # -- the session

    def _hello(self, secret: str, seconds: float) -> Mapping[str, Any]:
        told: dict[str, Any] = {"protocols": list(release.PROTOCOLS), "release": release.RELEASE}
        if secret:
            told["secret"] = secret
        request = self._begin()
        self._send_bytes(frames.preamble(frames.TO_GUEST))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._send(messages.HELLO, request, messages.pack_json(told))
            with contextlib.suppress(TimeoutError):
                frame = self._next(request, min(deadline, time.monotonic() + HELLO_AGAIN_SECONDS))
                if frame.kind != messages.WELCOME:
                    raise Lost(f"The agent in the guest answered with a frame of kind {frame.kind}.")
                self.forget(request)
                return _json(frame)
        raise Lost(
            "The agent in the guest does not answer. Is it installed and running there? 'headstart agent install' puts"
            " it there."
        )

    def require_protocol(self) -> None:
        """Raises ``Lost``."""
        try:
            oldest, newest = self.welcome["protocols"]
        except (KeyError, TypeError, ValueError):
            oldest = newest = None
        if not isinstance(oldest, int) or not isinstance(newest, int):
            raise Lost("The agent in the guest does not say which protocol it speaks.")
        ours = release.PROTOCOLS
        if oldest > ours[1] or newest < ours[0]:
            advice = (
                "update Headstart on this host" if oldest > ours[1] else "update the agent (headstart agent install)"
            )
            raise Mismatch(
                f"The agent in the guest speaks protocol {oldest} to {newest}, this host {ours[0]} to {ours[1]}:"
                f" {advice}."
            )

    def _begin(self) -> int:
        self._number += 1
        self._inbox[self._number] = deque()
        return self._number

    # -- requests

    def ask(self, do: str, seconds: float = ASK_SECONDS, **arguments: Any) -> dict[str, Any]:
        """The answer. Raises ``Refused``, ``Lost``."""
        request = self.start(do, **arguments)
        try:
            return self._told(request, self.frame(request, seconds, attending=False))
        finally:
            self.forget(request)

    def start(self, do: str, **arguments: Any) -> int:
        """Begin a request; ``answer`` has its answer, ``forget`` ends it."""
        request = self._begin()
        self._send(messages.ASK, request, messages.pack_json({"do": do, **arguments}))
        return request

    def follow(self, do: str, **arguments: Any) -> int:
        """Begin a request that tells the same again and again; ``newest`` has the last of it."""
        request = self.start(do, **arguments)
        self._followed.add(request)
        return request

    def newest(self, request: int) -> dict[str, Any] | None:
        """What has come of a followed request since the last call; None: nothing. Does not wait. Raises ``Refused``
        when it has ended, ``Lost``."""
        for _ in range(_AT_ONCE):
            if not self._arrives(0):
                break
            self._take(True)
        waiting = self._inbox.get(request)
        if not waiting:
            return None
        frame = waiting.popleft()
        self._unread -= _cost(frame)
        return self._told(request, frame)

    def pump(self, seconds: float) -> None:
        """Take in what arrives, for so long. Raises ``Lost``."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            self._take(self._arrives(min(rest, ATTEND_SECONDS)))
            if time.monotonic() > self._heard + PROBE_SECONDS:
                self._probe()

    def order(self, do: str) -> bytes:
        """A request as it goes over the link, for another process to send; empty if only we can (TLS)."""
        if isinstance(self._link, ssl.SSLSocket):
            return b""
        self._number += 1
        return frames.encode(messages.ASK, self._session, self._number, messages.pack_json({"do": do}))

    def answer(self, request: int, seconds: float) -> dict[str, Any]:
        """The next NOTE or the ANSWER of a request. Raises ``Refused``, ``Lost``."""
        return self._told(request, self.frame(request, seconds))

    def read(self, target: Mapping[str, Any], spans: Sequence[Span]) -> int:
        """Begin to read; ``frame`` has what comes."""
        request = self._begin()
        self._reads.add(request)
        self._send(messages.READ, request, messages.pack_read(messages.Read(dict(target), list(spans))))
        self._grant()
        return request

    def frame(self, request: int, seconds: float = SILENCE_SECONDS, *, attending: bool = True) -> Frame:
        """The next frame of a request; none follows an ANSWER. Raises ``Refused`` where it says that, ``Lost``."""
        deadline = time.monotonic() + seconds
        probe, attend = time.monotonic() + PROBE_SECONDS, time.monotonic() + ATTEND_SECONDS
        while True:
            try:
                with self._timed(request):
                    frame = self._next(request, min(deadline, probe, attend))
            except TimeoutError:
                if time.monotonic() > attend:
                    if attending:
                        self.attend()
                    attend = time.monotonic() + ATTEND_SECONDS
                now = time.monotonic()
                if request in self._reads and self._starved():
                    # It is our consumers who are slow.
                    deadline = now + seconds
                elif now > deadline:
                    raise Lost(f"The agent in the guest has not answered for {seconds:.0f} s.") from None
                if now > probe:
                    self._send(messages.CREDIT, 0, messages.pack_credit(0))
                    probe = now + PROBE_SECONDS
                continue
            return self._checked(request, frame)

    @contextlib.contextmanager
    def _timed(self, request: int) -> Iterator[None]:
        starved, began = self._starved(), time.monotonic()
        try:
            yield
        finally:
            if not starved:
                self._waited[request] = self.waited(request) + time.monotonic() - began

    def waited(self, request: int) -> float:
        """Seconds spent in ``frame`` for a request that was read, without those in which our consumers were slow."""
        return self._waited.get(request, 0.0)

    def _checked(self, request: int, frame: Frame) -> Frame:
        if frame.kind in (messages.ANSWER, messages.REFUSAL):
            self.forget(request)
        if frame.kind == messages.REFUSAL:
            told = _json(frame)
            raise Refused(plain.line(str(told.get("code", "")), 40), plain.line(str(told.get("text", "")), 200))
        return frame

    def _told(self, request: int, frame: Frame) -> dict[str, Any]:
        frame = self._checked(request, frame)
        if frame.kind not in (messages.ANSWER, messages.NOTE):
            raise Lost(f"The agent in the guest answered with a frame of kind {frame.kind}.")
        return _json(frame)

    def cancel(self, request: int) -> None:
        """End a request that may have ended; what is under way of it is thrown away. Raises ``Lost``."""
        if request not in self._inbox:
            return
        self._send(messages.CANCEL, request, b"")
        deadline = time.monotonic() + CANCEL_SECONDS
        try:
            while (frame := self._next(request, deadline)).kind not in (messages.ANSWER, messages.REFUSAL):
                if frame.kind == messages.DATA:
                    self.consumed(_content(frame))
        except TimeoutError:
            raise Lost("The agent in the guest does not let go of a request.") from None
        finally:
            self.forget(request)

    def forget(self, request: int) -> None:
        """Nothing of it is wanted any longer."""
        for frame in self._inbox.pop(request, ()):
            self._drop(frame)
        self._reads.discard(request)
        self._followed.discard(request)
        self._waited.pop(request, None)

    def file(self, position: int, data: bytes) -> None:
        self._send(messages.FILE, 0, messages.pack_position(position) + data)

    # -- credit

    def consumed(self, count: int) -> None:
        """A consumer is done with ``count`` bytes of content that ``frame`` handed out."""
        with self._counting:
            self._held -= count
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _grant(self) -> None:
        with self._counting:
            count = WINDOW - self._outstanding - self._held
            if count < PORTION:
                return
            self._outstanding += count
        self._send(messages.CREDIT, 0, messages.pack_credit(count))

    def _starved(self) -> bool:
        with self._counting:
            return self._outstanding < PORTION

    # -- bytes

    def _send(self, kind: int, request: int, payload: bytes) -> None:
        self._send_bytes(frames.encode(kind, self._session, request, payload))

    def _send_bytes(self, data: bytes) -> None:
        deadline = time.monotonic() + SILENCE_SECONDS
        view = memoryview(data)
        while view:
            try:
                view = view[self._link.send(view) :]
            except _LATER:
                # What the guest wants to tell must not keep it from listening.
                try:
                    self._take(self._wait(deadline, writing=True))
                except TimeoutError:
                    raise Lost(f"The agent in the guest has not listened for {SILENCE_SECONDS:.0f} s.") from None
            except OSError as error:
                raise _failed(error) from error

    def _wait(self, deadline: float, *, writing: bool = False) -> bool:
        """Until something arrives, something can be sent or is consumed; whether something arrived.

        Raises ``TimeoutError``."""
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        return self._arrives(rest, writing=writing)

    def _arrives(self, seconds: float, *, writing: bool = False) -> bool:
        if self._link.fileno() < 0:
            raise Lost("The channel to the agent in the guest is closed.")
        if isinstance(self._link, ssl.SSLSocket) and self._link.pending():
            return True
        poll = select.poll()
        poll.register(self._link, select.POLLIN | (select.POLLOUT if writing else 0))
        poll.register(self._wake, select.POLLIN)
        ready = dict(poll.poll(seconds * 1000))
        if self._wake in ready:
            with contextlib.suppress(OSError):
                os.eventfd_read(self._wake)
        return bool(ready.get(self._link.fileno(), 0) & ~select.POLLOUT)

    def _probe(self) -> None:
        """An agent that does not know the session any longer says so: ``_take`` raises ``Lost`` then."""
        self._heard = time.monotonic()
        poll = select.poll()
        poll.register(self._link, select.POLLOUT)
        # A guest that does not listen is not waited for.
        if poll.poll(0):
            self._send(messages.CREDIT, 0, messages.pack_credit(0))

    def _next(self, request: int, deadline: float) -> Frame:
        """Raises ``TimeoutError``."""
        waiting = self._inbox[request]
        while not waiting:
            if request in self._reads:
                self._grant()
            self._take(self._wait(deadline))
        frame = waiting.popleft()
        self._unread -= _cost(frame)
        return frame

    def _drop(self, frame: Frame) -> None:
        self._unread -= _cost(frame)
        if frame.kind == messages.DATA:
            self.consumed(_content(frame))

    def _take(self, arrived: bool) -> None:
        if not arrived:
            return
        try:
            data = self._link.recv(_RECEIVE)
        except _LATER:
            return
        except OSError as error:
            raise _failed(error) from error
        if not data:
            raise Lost("The channel to the agent in the guest was closed.")
        self._heard = time.monotonic()
        self._useless += len(data)
        for frame in self._decoder.feed(data):
            self._useless += -_length(frame) if self._sort(frame) else _FRAME_COST
        if self._decoder.hopeless:
            raise Lost("What comes from the guest is damaged again and again.")
        self._useless = max(0.0, self._useless - USELESS_RATE * (self._heard - self._counted))
        self._counted = self._heard
        if self._useless > USELESS_LIMIT:
            raise Lost("The agent in the guest sends what nobody has asked for, without end.")

    def _sort(self, frame: Frame) -> bool:
        """Whether somebody waits for it."""
        if frame.session != self._session:
            return False
        if frame.kind == messages.REFUSAL and _json(frame).get("code") == messages.STRANGE:
            raise Lost("The agent in the guest was restarted.")
        wanted = frame.request in self._inbox
        if frame.kind == messages.DATA:
            with self._counting:
                self._outstanding -= _content(frame)
                self._held += _content(frame) if wanted else 0
        if frame.request in self._followed and frame.kind == messages.NOTE:
            self._forget_notes(self._inbox[frame.request])
        self._unread += _cost(frame) if wanted else 0
        if self._outstanding < 0 or self._unread > UNREAD_LIMIT:
            raise Lost("The agent in the guest sends more than it may.")
        if wanted:
            self._inbox[frame.request].append(frame)
        return wanted

    def _forget_notes(self, waiting: deque[Frame]) -> None:
        """Older ones of a followed request: there is a newer one."""
        while waiting and waiting[-1].kind == messages.NOTE:
            forgotten = waiting.pop()
            self._unread -= _cost(forgotten)
            self._useless += _length(forgotten) + _FRAME_COST

    def fileno(self) -> int:
        return self._link.fileno()

    def close(self) -> None:
        with self._counting:
            wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)
        with contextlib.suppress(OSError):
            self._link.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _content(frame: Frame) -> int:
    """Bytes of a disk in a DATA frame."""
    return max(0, len(frame.payload) - len(messages.pack_position(0)))


def _length(frame: Frame) -> int:
    """On the link."""
    return frames.HEADER_SIZE + len(frame.payload)


def _cost(frame: Frame) -> int:
    """Beside its content, which is counted as credit."""
    return _FRAME_COST + (0 if frame.kind == messages.DATA else len(frame.payload))


def _failed(error: OSError) -> Lost:
    return Lost(f"The channel to the agent in the guest failed: {error}")


def _json(frame: Frame) -> dict[str, Any]:
    try:
        return messages.unpack_json(frame.payload)
    except messages.Malformed as error:
        raise Lost(f"The agent in the guest answered nonsense: {error}") from None
