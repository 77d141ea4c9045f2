"""What a rehearsal sees of a domain of libvirt's: a ``stage.Stage``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import libvirt

from headstart import errors
from headstart.restore.booting import domainboot, domainxml
from headstart.restore.booting.boot import Wanted
from headstart.restore.booting.definition import QGA_PORT
from headstart.restore.booting.domainboot import BootedDomain
from headstart.restore.rehearsing.stage import ASK_SECONDS, Asked
from headstart.restore.serving.serving import Source
from headstart.wire.libvirt import Domain, DomainQga

_LIMIT = 8 << 20


class DomainStage:
    """``uri`` is where the domain runs."""

    def __init__(self, booted: BootedDomain, uri: str) -> None:
        self.instance = booted.instance
        self.served = booted.served
        self.notes = booted.notes
        self.consoles = booted.consoles
        self._uri = uri
        self.has_qga = self.has_agent = QGA_PORT in domainxml.ports(booted.definition)

    @contextlib.contextmanager
    def qga(self) -> Iterator[Asked]:
        with contextlib.closing(DomainQga(Domain(self._uri, self.instance.domain.uuid))) as found:
            yield found

    def answers(self) -> bool:
        with contextlib.suppress(errors.HeadstartError), self.qga() as qga:
            qga.execute("guest-ping", ASK_SECONDS)
            return True
        return False

    def screenshot(self) -> bytes:
        """Of an older libvirt, which has another format than PNG, none."""
        content = bytearray()

        def take(_stream: Any, data: bytes, _given: object) -> int:
            content.extend(data)
            return 0 if len(content) <= _LIMIT else -1

        with (
            contextlib.suppress(errors.HeadstartError, libvirt.libvirtError),
            contextlib.closing(Domain(self._uri, self.instance.domain.uuid)) as domain,
        ):
            domain.ask(lambda each: _picture(each, take))
        return bytes(content) if content.startswith(b"\x89PNG") else b""

    def last_words(self) -> str:
        return "libvirt does not say why"


def _picture(domain: Any, take: Any) -> None:
    stream = domain.connect().newStream()
    domain.screenshot(stream, 0, 0)
    stream.recvAll(take, None)
    stream.finish()


@contextlib.contextmanager
def started(source: Source, wanted: Wanted, uri: str) -> Iterator[DomainStage]:
    with domainboot.booted(source, wanted, uri) as booted:
        yield DomainStage(booted, uri)
