"""libvirt: connections that outlive a restart of its daemon, its errors in our words, and its events.

libvirt's calls block, and release Python's lock. One thread of the process serves its sockets and timers
(``virEventRunDefaultImpl``); events arrive there and are kept in order until somebody asks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from headstart import errors, plain
from headstart.wire import qga

#: A daemon that is restarted is back within this; longer is an outage.
RECONNECT_SECONDS = 30.0
RETRY_SECONDS = 0.2
#: Seconds between probes of a silent daemon, and how many may stay unanswered.
KEEPALIVE = (5, 6)

Answer = TypeVar("Answer")


class LinkLost(errors.Unreachable):
    """The daemon went away during an order: whether it was carried out is not known. The link is up again."""


#: What is listened to; what an event says beside its name is asked for where it is needed.
_EVENTS = {
    "job": libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
    "life": libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    "block-job": libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
}


@functools.cache
def _serve_events() -> None:
    """Once in a process, before its first connection."""
    libvirt.virEventRegisterDefaultImpl()
    # Without this libvirt writes every error on stderr as well.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, name="libvirt events", daemon=True).start()


def open_connection(uri: str) -> Any:
    """A ``virConnect``. Raises ``Unreachable`` and ``Usage``."""
    _serve_events()
    try:
        connection = libvirt.open(uri)
        connection.setKeepAlive(*KEEPALIVE)
    except libvirt.libvirtError as error:
        raise _unopened(uri, error) from error
    return connection


def _unopened(uri: str, error: libvirt.libvirtError) -> errors.HeadstartError:
    said = _said(error)
    refused = error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() == errno.EACCES
    if refused or error.get_error_code() in (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED):
        return errors.Unreachable(
            f"libvirt at {uri} does not let you in: {said}. Run as root, or join the group 'libvirt'."
        )
    if error.get_error_code() in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_ARG):
        return errors.Usage(f"{uri!r} is no URI of libvirt's: {said}. The usual one is qemu:///system.")
    return errors.Unreachable(f"libvirt at {uri} cannot be reached: {said}. Is libvirtd (or virtqemud) running?")


class Domain:
    """One domain through one connection. A context manager; used by one thread at a time."""

    def __init__(self, uri: str, name: str) -> None:
        """``name`` is the domain's, or its UUID. Raises ``Unreachable``, ``NotFound``, ``Usage``."""
        self.uri = uri
        self._news = threading.Condition()
        self._events: list[str] = []
        self._listening: list[int] = []
        self._connection = open_connection(uri)
        try:
            self._domain = self._look_up(name)
            self.uuid: str = self._domain.UUIDString()
            self._listen()
        except BaseException:
            self.close()
            raise

    def _look_up(self, name: str) -> Any:
        for find in (self._connection.lookupByName, self._connection.lookupByUUIDString):
            with contextlib.suppress(libvirt.libvirtError):
                return find(name)
        raise errors.NotFound(
            f"libvirt at {self.uri} has no domain {name!r}. 'headstart vm discover {self.uri}' shows those it has.",
            domain=name,
        )

    # -- asking

    def ask(self, question: Callable[[Any], Answer]) -> Answer:
        """``question`` of the ``virDomain``; asked again if the daemon is restarted meanwhile. Errors in our words."""
        try:
            return self.order(question)
        except LinkLost:
            return self.order(question)

    def order(self, order: Callable[[Any], Answer]) -> Answer:
        """The same for what must not be done twice: raises ``LinkLost`` when it may have been done."""
        try:
            return order(self._domain)
        except libvirt.libvirtError as error:
            if not self._alive():
                self._reconnect()
                raise LinkLost(f"libvirt at {self.uri} was restarted: {_said(error)}.") from error
            raise in_our_words(error) from error

    def _alive(self) -> bool:
        with contextlib.suppress(libvirt.libvirtError):
            return bool(self._connection.isAlive())
        return False

    def _reconnect(self) -> None:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                self._connection = open_connection(self.uri)
                self._domain = self._connection.lookupByUUIDString(self.uuid)
            except (errors.Unreachable, libvirt.libvirtError) as error:
                if time.monotonic() > deadline:
                    raise errors.Unreachable(f"libvirt at {self.uri} went away and does not come back.") from error
                time.sleep(RETRY_SECONDS)
            else:
                self._listen()
                return

    def stats(self, kinds: int) -> Mapping[str, Any]:
        """Of the ``VIR_DOMAIN_STATS_*`` asked for those that libvirt has without waiting for anybody, by their names
        in ``virConnectGetAllDomainStats``."""
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        found = self.ask(lambda domain: self._connection.domainListGetStats([domain], kinds, flags))
        return dict(found[0][1]) if found else {}

    def capabilities(self) -> str:
        """XML of the host."""
        return str(self._connection.getCapabilities())

    # -- events

    def _listen(self) -> None:
        register = self._connection.domainEventRegisterAny
        self._listening = [register(self._domain, number, self._arrived, name) for name, number in _EVENTS.items()]

    def _arrived(self, _connection: Any, _domain: Any, *facts: Any) -> None:
        """On the thread that serves events."""
        with self._news:
            self._events.append(facts[-1])
            self._news.notify_all()

    @property
    def mark(self) -> int:
        """Events from now on are those since this."""
        with self._news:
            return len(self._events)

    def happened(self, name: str, mark: int) -> bool:
        """Since ``mark``."""
        with self._news:
            return name in self._events[mark:]

    def wait_event(self, name: str | None, seconds: float, mark: int) -> bool:
        """Whether an event of this name (None: any) has come since ``mark``, or comes in time."""
        with self._news:
            return self._news.wait_for(lambda: any(name in (None, each) for each in self._events[mark:]), seconds)

    # -- its end

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            for number in self._listening:
                self._connection.domainEventDeregisterAny(number)
        self._listening = []
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def __enter__(self) -> Domain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DomainQga:
    """qga through libvirt, which owns its channel: like ``headstart.wire.qga.Qga``, for commands that libvirt itself
    has no call for."""

    def __init__(self, domain: Domain) -> None:
        """Owns ``domain``."""
        self._domain = domain

    def execute(
        self,
        command: str,
        seconds: float,
        arguments: Mapping[str, Any] | None = None,
        attend: Callable[[], None] | None = None,
    ) -> Any:
        """Raises ``Unreachable`` when it does not answer in time, or with an error. ``attend`` is called again and
        again while it waits. What it raises ends that, and not what libvirt waits for: its time does."""
        order = json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})

        def ask(domain: Any) -> str:
            return str(libvirt_qemu.qemuAgentCommand(domain, order, max(1, math.ceil(seconds)), 0))

        try:
            said = self._domain.order(ask if attend is None else lambda domain: _attended(lambda: ask(domain), attend))
        except Failed as error:
            raise errors.Unreachable(f"The guest agent (qga) does not do {command}: {error}") from error
        return qga.decoded(said).get("return")

    def close(self) -> None:
        self._domain.close()


def _attended(call: Callable[[], Answer], attend: Callable[[], None]) -> Answer:
    """What ``call`` returns or raises. Where ``attend`` raises, it goes on, and nobody learns how it ended."""
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="libvirt call", daemon=True).start()
    while not futures.wait([outcome], qga.ATTEND_SECONDS).done:
        attend()
    return outcome.result()


class Gone(errors.Unreachable):
    """The domain is not there (any longer)."""


class Failed(errors.HeadstartError):
    """libvirt refused an order. ``code`` is a ``VIR_ERR_*``."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def in_our_words(error: libvirt.libvirtError) -> errors.HeadstartError:
    code, said = error.get_error_code(), _said(error)
    match code:
        case libvirt.VIR_ERR_NO_DOMAIN:
            return Gone(f"The domain is gone from libvirt: {said}.")
        case libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return errors.Busy(f"The domain is busy with something else: {said}.")
        case libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
            return errors.Unreachable(f"The guest agent (qga) does not answer: {said}.")
    return Failed(f"libvirt refused: {said}.", code)


def _said(error: libvirt.libvirtError) -> str:
    return plain.joined(str(error)).rstrip(".")


def domains(uri: str) -> Iterator[Any]:
    """Every ``virDomain`` there, by name. Raises ``Unreachable``, ``Usage``."""
    connection = open_connection(uri)
    try:
        try:
            yield from sorted(connection.listAllDomains(), key=lambda domain: str(domain.name()))
        except libvirt.libvirtError as error:
            raise in_our_words(error) from error
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()
