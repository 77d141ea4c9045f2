"""TLS for the channel over TCP. Loaded for that alone: the library takes megabytes, and is not in every Python."""

import hmac
import os
import socket
import ssl
from typing import Any, Dict

from headstart.agentd.sockets import Later

#: In the folder that ``headstart agent keys`` has made.
CERTIFICATE, SECRET = "agent.pem", "secret"
LATER: Later = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_SHORTEST = 32


class Keys:
    """Of one folder. Raises ``OSError`` and ``ValueError``."""

    def __init__(self, folder: str) -> None:
        with open(os.path.join(folder, SECRET), "rb") as file:
            self._secret = file.read().strip()
        if len(self._secret) < _SHORTEST:
            raise ValueError("the secret in %s is too short" % folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Python 3.6 has no minimum_version.
        self._context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1 | ssl.OP_NO_COMPRESSION
        self._context.load_cert_chain(os.path.join(folder, CERTIFICATE))

    def wrap(self, connected: socket.socket) -> socket.socket:
        connected.setblocking(False)
        return self._context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)

    def admits(self, told: Dict[str, Any]) -> bool:
        secret = told.get("secret")
        return isinstance(secret, str) and hmac.compare_digest(secret.encode("utf-8", "replace"), self._secret)
