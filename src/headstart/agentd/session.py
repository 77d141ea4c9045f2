"""What the host asks, one session at a time: frames in, frames out.

A HELLO begins a session and ends everything before it. A frame of another session is not for us.
"""

from typing import Any, Callable, Dict, List, Optional

from headstart.agentd import frames, messages
from headstart.agentd.devices import Devices
from headstart.agentd.frames import Buffer, Decoder, Frame
from headstart.agentd.work import Refused, Work

#: Starts a request: ``(session, request, arguments) -> Work``, or its answer at once. Raises ``Refused``.
Handler = Callable[["Session", int, Dict[str, Any]], Any]

#: Requests under way at once.
MOST = 16
#: Characters of a refusal.
_TEXT = 1000


class Session:
    """``handlers`` by what an ASK names; READ and FILE have entries of their own. ``welcome`` is what a host is
    told; ``admits`` says whether a HELLO comes from who may ask."""

    def __init__(
        self,
        handlers: Dict[str, Handler],
        read: Callable[["Session", int, bytes], Work],
        file: Callable[[int, bytes], None],
        welcome: Callable[[], Dict[str, Any]],
        admits: Callable[[Dict[str, Any]], bool],
    ) -> None:
        self._handlers = handlers
        self._read = read
        self._file = file
        self._welcome = welcome
        self._admits = admits
        #: Those of which the host was told digests.
        self.devices = Devices()
        self.clear()

    def clear(self) -> None:
        """The other side is gone: nothing is owed to it."""
        for work in sorted(getattr(self, "works", {}).values(), key=lambda work: work.keeps):
            work.cancel()
        self.devices.forget()
        self._decoder = Decoder(frames.TO_GUEST)
        self._session: Optional[int] = None
        #: No frame that was begun before is still waited for at the other side.
        self._whole = False
        self.credit = 0
        self.works: Dict[int, Work] = {}
        #: What is to be written, in order.
        self.outbox: List[Buffer] = []

    def receive(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if frame.kind == messages.HELLO:
                self._hello(frame)
            elif frame.session != self._session:
                self._estrange(frame)
            else:
                try:
                    self._obey(frame)
                except Exception as error:
                    # Whatever is wrong with a request is no reason for us to end.
                    self._refuse(frame.request, _refusal(error))

    def _estrange(self, frame: Frame) -> None:
        if self._session is None and not self._whole:
            # An agentd before us may have been cut off in the middle of a frame.
            self._whole = True
            self.outbox.append(frames.preamble(frames.FROM_GUEST))
        told = messages.pack_json({"code": messages.STRANGE, "text": "no such session"})
        self.outbox.append(frames.encode(messages.REFUSAL, frame.session, frame.request, told))

    def _hello(self, frame: Frame) -> None:
        try:
            told = messages.unpack_json(frame.payload)
        except messages.Malformed:
            return
        if not self._admits(told):
            return
        decoder = self._decoder
        self.clear()
        self._decoder = decoder
        self._session, self._whole = frame.session, True
        # Who was cut off in the middle of a frame waits for the rest of it.
        self.outbox.append(frames.preamble(frames.FROM_GUEST))
        self.send(frame.request, messages.WELCOME, messages.pack_json(self._welcome()))

    def _obey(self, frame: Frame) -> None:
        if frame.kind == messages.CREDIT:
            self.credit += messages.unpack_credit(frame.payload)
        elif frame.kind == messages.CANCEL:
            self._cancel(frame.request)
        elif frame.kind == messages.FILE:
            self._file(*messages.unpack_position(frame.payload))
        elif len(self.works) >= MOST or frame.request in self.works:
            raise Refused(messages.WRONG, "too much at once")
        elif frame.kind == messages.READ:
            self.works[frame.request] = self._read(self, frame.request, frame.payload)
        elif frame.kind == messages.ASK:
            self._ask(frame.request, messages.unpack_json(frame.payload))
        else:
            raise Refused(messages.UNKNOWN, "frame of kind %d" % frame.kind)

    def _ask(self, request: int, told: Dict[str, Any]) -> None:
        name = told.get("do")
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            raise Refused(messages.UNKNOWN, "cannot do %r" % (name,))
        started = handler(self, request, told)
        if isinstance(started, Work):
            self.works[request] = started
        else:
            packed = messages.pack_json(started)
            if len(packed) > frames.FROM_GUEST:
                raise Refused(messages.FAILED, "the answer is too long: %d bytes" % len(packed))
            self.send(request, messages.ANSWER, packed)

    def _cancel(self, request: int) -> None:
        work = self.works.pop(request, None)
        if work is not None:
            work.cancel()
            self._refuse(request, Refused(messages.CANCELLED, ""))

    def _refuse(self, request: int, refusal: Refused) -> None:
        told = messages.pack_json({"code": refusal.code, "text": str(refusal)[:_TEXT]})
        self.send(request, messages.REFUSAL, told)

    def send(self, request: int, kind: int, *payload: Buffer) -> None:
        assert self._session is not None
        parts = [frames.header(kind, self._session, request, *payload), *payload]
        # Each part costs a write of its own; content is too long to be copied for that.
        content = parts.pop() if kind == messages.DATA else b""
        self.outbox.append(b"".join(parts))
        if content:
            self.outbox.append(content)
        if kind == messages.DATA:
            self.credit -= len(payload[-1])

    def step(self, request: int, now: float) -> None:
        """Let a request go on; tell its answer."""
        work = self.works[request]
        try:
            work.step(now)
        except Exception as error:
            self._end(request)
            self._refuse(request, _refusal(error))
        else:
            if work.answer is not None:
                self._end(request)
                self.send(request, messages.ANSWER, messages.pack_json(work.answer))

    def _end(self, request: int) -> None:
        self.works.pop(request).cancel()


def _refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, messages.Malformed):
        return Refused(messages.WRONG, str(error))
    if isinstance(error, OSError):
        return Refused(messages.FAILED, str(error))
    return Refused(messages.WRONG, repr(error))
