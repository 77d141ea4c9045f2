"""Appliances as threads of the tests, with a store that can be told to fail, and everything real between."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import repository
from headstart.appliance import keys, messages, relay
from headstart.appliance.addresses import Address
from headstart.appliance.relay import Relay, Ticket
from headstart.appliance.service import Service
from headstart.repository import Repository
from headstart.store.contract import Store
from tests.kit import stores


@dataclass(frozen=True, slots=True)
class Hired:
    """An appliance that serves, and how a host reaches it."""

    service: Service
    address: Address
    repo: Repository


@contextlib.contextmanager
def serving(folder: Path, store: Store, sessions: int = 4) -> Iterator[Hired]:
    """``folder`` gets keys if it has none. The repository in ``store`` is opened once more, as by another machine."""
    if not (folder / keys.HOST).exists():
        keys.make(folder)
    with repository.open(store, lambda: stores.PASSWORD) as repo:
        service = Service(repo, folder / keys.APPLIANCE, "127.0.0.1", 0, sessions)
        thread = threading.Thread(target=service.serve, daemon=True)
        thread.start()
        try:
            yield Hired(service, Address("127.0.0.1", service.port, folder / keys.HOST), repo)
        finally:
            service.stop()
            thread.join()


@dataclass(frozen=True, slots=True)
class Relayed:
    """``near`` is where an NBD client finds what is relayed."""

    host: Relay
    appliance: Relay
    near: socket.socket


@contextlib.contextmanager
def relayed(folder: Path, uri: str, secret: str = "") -> Iterator[Relayed]:
    """Both ends of a relay, on this machine. ``secret``: that the appliance knows of, if it is another one."""
    keys.make(folder)
    ticket = Ticket.new()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with relay.bring(ours, uri, folder / keys.HOST, ticket) as host:
        said = theirs.recv(len(messages.DATA_MAGIC) + messages.TOKEN_LENGTH, socket.MSG_WAITALL)
        assert said == messages.DATA_MAGIC + ticket.token.encode()
        expected = Ticket(ticket.token, secret or ticket.secret)
        end, near = relay.receive(theirs, folder / keys.APPLIANCE, expected)
        with end, near:
            yield Relayed(host, end, near)
