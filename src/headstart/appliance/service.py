"""``headstart appliance``: one port, at which hosts give orders and bring disks.

::

    a connection   first byte of TLS     ->  a host with a certificate that we know  ->  Session
                   DATA_MAGIC and token  ->  the session that expects it; TLS that follows says who it is
                   anything else         ->  closed
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from headstart import errors, repository
from headstart.appliance import keys, messages
from headstart.appliance.counter import Counter
from headstart.appliance.link import Link, keep_alive
from headstart.appliance.session import Session
from headstart.repository import Repository
from headstart.store.memory import MemoryStore

_log = logging.getLogger(__name__)

#: Rounds at a time: each has packs of 64 MiB in memory.
SESSIONS = 4
#: Whoever connects has so long to say who he is, and so many may be about it.
GREETING_SECONDS = 10.0
_STRANGERS = 64
_ACCEPT_SECONDS = 0.5


class Service:
    """Listens from the constructor on; ``serve`` until ``stop``, which may be called from any thread."""

    def __init__(self, repo: Repository, folder: Path, host: str, port: int, sessions: int = SESSIONS) -> None:
        """``folder`` has the keys of an appliance. Raises ``Usage``, ``TargetRefused`` where it cannot listen."""
        self._repo = repo
        self._keys = folder
        self._context = keys.context(folder, keys.APPLIANCE)
        self._counter = Counter()
        self._sessions = threading.BoundedSemaphore(sessions)
        self._strangers = threading.BoundedSemaphore(_STRANGERS)
        self._stop = threading.Event()
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family)
        except OSError as error:
            raise errors.TargetRefused(f"Nobody can listen at {host}, port {port}: {error.strerror}.") from error
        self._listener.settimeout(_ACCEPT_SECONDS)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        with self._listener:
            while not self._stop.is_set():
                try:
                    link, address = self._listener.accept()
                except TimeoutError:
                    continue
                if not self._strangers.acquire(blocking=False):
                    link.close()
                    continue
                threading.Thread(target=self._greet, args=(link, str(address[0])), daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _greet(self, link: socket.socket, whose: str) -> None:
        try:
            link.settimeout(GREETING_SECONDS)
            keep_alive(link)
            secured = self._sort(link)
        except OSError as error:
            link.close()
            _log.info("Whoever came from %s is none of our hosts: %s", whose, error)
            return
        finally:
            self._strangers.release()
        if secured is not None:
            _log.info("A host has come from %s.", whose)
            self._session(Link(secured))

    def _sort(self, link: socket.socket) -> ssl.SSLSocket | None:
        """A host that has orders; None for whoever has none."""
        first = link.recv(1, socket.MSG_PEEK)
        if first and first[0] == messages.TLS_FIRST_BYTE:
            return self._context.wrap_socket(link, server_side=True)
        if first != messages.DATA_MAGIC[:1] or not self._hand_over(link):
            link.close()
        return None

    def _session(self, link: Link) -> None:
        if not self._sessions.acquire(blocking=False):
            Session(link, self._counter, self._keys, _full).serve()
            return
        try:
            Session(link, self._counter, self._keys, self._repository).serve()
        finally:
            self._sessions.release()

    def _hand_over(self, link: socket.socket) -> bool:
        """Nothing more than the token is read: what follows is TLS."""
        wanted = len(messages.DATA_MAGIC) + messages.TOKEN_LENGTH
        said = b""
        while len(said) < wanted and (more := link.recv(wanted - len(said))):
            said += more
        if not said.startswith(messages.DATA_MAGIC):
            return False
        link.settimeout(None)
        return self._counter.bring(said.removeprefix(messages.DATA_MAGIC).decode("ascii", "replace"), link)

    def _repository(self, told: dict[str, Any]) -> Repository:
        """Raises ``Usage`` for one that is not ours. A trial is stored nowhere."""
        if told.get("trial") is True:
            return repository.create(MemoryStore(), None)
        if told.get("repository") != self._repo.id:
            raise errors.Usage(
                f"This appliance stores in repository {self._repo.id[:8]}, and the host means another one."
            )
        # What the store has lost since must not count as stored.
        self._repo.drop_lost()
        return self._repo


def _full(told: dict[str, Any]) -> Repository:
    raise errors.Busy("The appliance works for as many hosts as it may.")
