"""A server process: TLS, the application in uvicorn, an orderly end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from headstart import errors
from headstart.server import app, deadline, engines, site, telling, tls
from headstart.server.settings import Settings
from headstart.server.streams import Streams

_log = logging.getLogger("headstart.server")

#: Connections at a time; whoever comes then is told to wait (503).
_CONNECTIONS = 4000
#: At the end, requests that are under way have so long.
_FAREWELL_SECONDS = 20
_LOOK_SECONDS = 0.5
#: A peer that is gone without a word is noticed by the system after about two minutes.
_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
#: An answer's end does not wait until its beginning is acknowledged, which takes 40 ms. asyncio does this only to
#: sockets that name their protocol, and those of ``create_server`` do not.
_AT_ONCE = (socket.TCP_NODELAY, 1)


def serve(settings: Settings, ready: Callable[[str, str], None], *, plain: bool = False) -> None:
    """Until SIGTERM or SIGINT; with SIGHUP certificate and key are read again. ``ready`` is told the URL and the
    fingerprint of the server's own certificate (empty: another's). ``plain``: without TLS, for one behind something
    that speaks it; on loopback alone. Raises ``Usage``, and what opening the database raises."""
    own = settings.certificate is None
    certificate, key = settings.certificate, settings.key
    if certificate is None or key is None:
        certificate, key = tls.ensure(settings.data, _names(settings))
    fingerprint = "" if plain or not own else tls.fingerprint(certificate)
    opened = site.open_site(settings, fingerprint=fingerprint)
    application = app.make(opened)
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=int(deadline.IDLE_SECONDS),
        http=deadline.Impatient,
        timeout_graceful_shutdown=_FAREWELL_SECONDS,
        ssl_certfile=None if plain else str(certificate),
        ssl_keyfile=None if plain else str(key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    _raise_limits()
    with _listening(settings) as listener:
        try:
            config.load()
        except (ssl.SSLError, OSError) as error:
            raise errors.Usage(f"{certificate} and {key} are no certificate and its key: {error}.") from error
        host, port = listener.getsockname()[:2]
        scheme = "http" if plain else "https"
        ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", fingerprint)
        try:
            with engines.running(opened, settings.workers), telling.running(opened):
                renew = _renewal(config, None if own else (certificate, key))
                _Server(config, application.state.streams, renew).run(sockets=[listener])
        finally:
            opened.database.close()
            sys.stderr.flush()


def _raise_limits() -> None:
    """Each connection is a file, and the usual limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _renewal(config: uvicorn.Config, files: tuple[Path, Path] | None) -> Callable[[], None]:
    """What SIGHUP does. A server's own certificate stays: hosts have pinned it."""

    def renew() -> None:
        if config.ssl is None or files is None:
            _log.info("There is no certificate of an authority's to be read again.")
            return
        try:
            fingerprint = tls.renew(config.ssl, *files)
        except errors.Usage as error:
            _log.error("The certificate was not replaced, the one before stays: %s", error)
        else:
            _log.info("The certificate was read again.", extra={"fingerprint": fingerprint})

    return renew


class _Server(uvicorn.Server):
    """At its end nobody is waited for who only watches, or keeps a connection of which nothing comes: TLS would wait
    for the other side to say farewell."""

    def __init__(self, config: uvicorn.Config, streams: Streams, renew: Callable[[], None]) -> None:
        super().__init__(config)
        self._streams = streams
        self._renew = renew

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._renew)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        dropping = asyncio.create_task(self._drop_idle())
        try:
            await super().shutdown(sockets)
        finally:
            dropping.cancel()

    async def _drop_idle(self) -> None:
        before: set[Any] = set()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            # One whose answer was written just now still sends it.
            idle = {each for each in self.server_state.connections if _is_idle(each)}
            for each in idle & before:
                each.transport.abort()
            before = idle


def _is_idle(connection: Any) -> bool:
    cycle = getattr(connection, "cycle", None)
    return cycle is None or bool(cycle.response_complete)


def _names(settings: Settings) -> tuple[str, ...]:
    usual = ("localhost", "127.0.0.1", socket.gethostname())
    return tuple(dict.fromkeys([*settings.names, *usual, settings.address]))


def _listening(settings: Settings) -> socket.socket:
    """Before anything else, so that a port in use is told at once."""
    try:
        family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
        listener = socket.create_server((settings.address, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise errors.Usage(f"{settings.address}:{settings.port} cannot be listened on: {error.strerror}.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (*_ALIVE, _AT_ONCE):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener
