"""An agent that says what a test wants it to say."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from headstart.agentd import frames, messages
from headstart.agentd.frames import Frame

WELCOME = {"protocols": [1, 1], "release": 1, "sources": ""}


class Guest:
    """The agent's end."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._decoder = frames.Decoder(frames.TO_GUEST)
        self._pending: list[Frame] = []
        self.session = 0
        link.settimeout(20)

    def next(self, kind: int | None = None) -> Frame:
        """The next frame, of this kind. Raises ``OSError`` when the host is gone."""
        while True:
            while not self._pending:
                data = self._link.recv(1 << 16)
                if not data:
                    raise OSError("closed")
                self._pending += self._decoder.feed(data)
            frame = self._pending.pop(0)
            if frame.kind == messages.HELLO:
                self.session = frame.session
            if kind is None or frame.kind == kind:
                return frame

    def send(self, kind: int, request: int, payload: bytes) -> None:
        self.raw(frames.encode(kind, self.session, request, payload))

    def tell(self, kind: int, request: int, **told: object) -> None:
        self.send(kind, request, messages.pack_json(told))

    def data(self, request: int, position: int, content: bytes) -> None:
        self.send(messages.DATA, request, messages.pack_position(position) + content)

    def zeroes(self, request: int, position: int, length: int) -> None:
        self.send(messages.ZEROES, request, messages.pack_span((position, length)))

    def raw(self, data: bytes) -> None:
        self._link.sendall(data)

    def welcome(self) -> None:
        request = self.next(messages.HELLO).request
        self.raw(frames.preamble(frames.FROM_GUEST))
        self.tell(messages.WELCOME, request, **WELCOME)


@contextlib.contextmanager
def playing(script: Callable[[Guest], object], *, welcome: bool = True) -> Iterator[socket.socket]:
    """The host's end. The script ends with the host, or the host with the script's socket."""
    ours, theirs = socket.socketpair()
    wrong: list[BaseException] = []

    def play() -> None:
        guest = Guest(theirs)
        try:
            if welcome:
                guest.welcome()
            script(guest)
            while True:
                guest.next()
        except OSError:
            pass
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(20)
        theirs.close()
        assert not thread.is_alive()
        assert not wrong, wrong
