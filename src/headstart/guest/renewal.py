"""An agent of an older release gets the one that this host has, over the channel, and goes on as that.

The protocol may have changed in between: what is used here never does (see ``agentd.release``).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from headstart import errors, plain
from headstart.agentd import release
from headstart.guest import package
from headstart.guest.channel import HELLO_SECONDS, Channel, Lost, Refused

#: Content of a FILE frame; well below ``frames.TO_GUEST``.
_PIECE = 16 * 1024
#: A little more than the agent gives the new file to start.
INSTALL_SECONDS = 75.0
#: How long the new one may take until it answers.
RETURN_SECONDS = 30.0

_log = logging.getLogger(__name__)

#: Connects, each time anew.
Connect = Callable[[], socket.socket]


class NotRenewed(Lost):
    """The agent in the guest cannot be used as it is, and could not be replaced."""


def due(welcome: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> bool:
    """Whether what this host has is newer; of the same number, but not the same, also counts."""
    number, sources = welcome.get("release"), welcome.get("sources")
    if not isinstance(number, int):
        return True
    ours = package.sources() if texts is None else texts
    return number < release.RELEASE or (number == release.RELEASE and sources != package.digest(ours))


def renew(channel: Channel, content: bytes) -> None:
    """Replace the agent at the other end. The channel is of no use afterwards.

    Raises ``Refused``, and ``Lost``: then it is not known which of them is there."""
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    channel.ask("renew", release=release.RELEASE, size=len(content), digest=digest)
    for start in range(0, len(content), _PIECE):
        channel.file(start, content[start : start + _PIECE])
    request = channel.start("install")
    channel.answer(request, INSTALL_SECONDS)


def open_channel(connect: Connect, *, secret: str = "", seconds: float = HELLO_SECONDS) -> Channel:
    """A channel to an agent of our release, or of a newer one; an older one is replaced, or served as it is if it
    cannot be and speaks our protocol.

    Raises ``Lost``; ``NotRenewed``, with the reason, if an agent of another protocol cannot be replaced."""
    channel = _open(connect, secret, seconds)
    try:
        if due(channel.welcome):
            channel = _renewed(channel, connect, secret)
        channel.require_protocol()
    except BaseException:
        channel.close()
        raise
    return channel


def await_ours(connect: Connect, *, secret: str = "", seconds: float) -> None:
    """Until an agent with the sources of this host answers. Raises ``Unreachable``."""
    ours = package.digest(package.sources())
    deadline = time.monotonic() + seconds
    while True:
        try:
            with _open(connect, secret, HELLO_SECONDS) as channel:
                if channel.welcome.get("sources") == ours:
                    return
                reason: errors.Unreachable = Lost("Another release answers: it is started from somewhere else as well.")
        except errors.Unreachable as error:
            reason = error
        if time.monotonic() > deadline:
            raise reason
        time.sleep(0.2)


def _open(connect: Connect, secret: str, seconds: float) -> Channel:
    return Channel(connect(), secret=secret, seconds=seconds, any_protocol=True)


def _renewed(channel: Channel, connect: Connect, secret: str) -> Channel:
    """A channel to whoever is there afterwards."""
    old = plain.line(str(channel.welcome.get("release")), 40)
    try:
        renew(channel, package.build())
        _log.info("renewed the agent in the guest: release %s instead of %s", release.RELEASE, old)
    except Refused as refusal:
        _log.warning("The agent in the guest, of release %s, cannot be renewed: %s", old, refusal)
        _require_as_it_is(channel, refusal)
        return channel
    except Lost as error:
        _log.warning("The agent in the guest, of release %s, was lost while it was renewed: %s", old, error)
    channel.close()
    return _return(connect, secret)


def _return(connect: Connect, secret: str) -> Channel:
    """The agent after it has executed itself, or has been started again."""
    deadline = time.monotonic() + RETURN_SECONDS
    while True:
        with contextlib.suppress(errors.Unreachable, OSError):
            return _open(connect, secret, HELLO_SECONDS)
        if time.monotonic() > deadline:
            raise NotRenewed("The agent in the guest does not answer any longer since it was renewed.")
        time.sleep(0.2)


def _require_as_it_is(channel: Channel, refusal: Refused) -> None:
    try:
        channel.require_protocol()
    except Lost as error:
        raise NotRenewed(f"{error} It could not be replaced over the channel. {refusal}") from error
