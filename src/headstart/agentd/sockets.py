"""The channel to the host over vsock, or over TCP with TLS. Apart from ``links``: TLS costs memory."""

import ssl
from typing import Optional

from headstart.agentd.frames import Buffer
from headstart.agentd.links import LONGEST, Gone, Link


class Socket(Link):
    """A stream socket, with TLS or without."""

    def __init__(self, connected: "ssl.SSLSocket") -> None:
        connected.setblocking(False)
        self._socket = connected

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, count: int) -> Optional[bytes]:
        try:
            return self._socket.recv(count)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise Gone(str(error)) from None

    def write(self, data: Buffer) -> int:
        try:
            return self._socket.send(memoryview(data)[:LONGEST])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise Gone(str(error)) from None

    def pending(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def close(self) -> None:
        self._socket.close()
