"""A domain of libvirt's that we start: like ``instance`` for plain QEMU.

It is transient, and started without its guest running. Unless it ``outlives`` us libvirt ends it with our connection.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Any

import libvirt

from headstart import errors
from headstart.wire import libvirt as wire
from headstart.wire.libvirt import Domain

_POLL_SECONDS = 0.1
_OFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)
_PAUSED = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "io-error",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "guest-panicked",
}


class DomainInstance:
    """``domain`` is for one thread."""

    def __init__(self, uri: str, xml: str, *, outlives: bool = False) -> None:
        """Raises ``Unreachable`` with what libvirt says."""
        self._kept = False
        self._connection: Any = wire.open_connection(uri)
        flags = libvirt.VIR_DOMAIN_START_PAUSED | (0 if outlives else libvirt.VIR_DOMAIN_START_AUTODESTROY)
        try:
            made = self._connection.createXML(xml, flags)
            self.domain = Domain(uri, made.UUIDString())
        except libvirt.libvirtError as error:
            self._connection.close()
            raise errors.Unreachable(f"libvirt cannot start the VM: {wire.in_our_words(error)}") from error

    @property
    def ended(self) -> bool:
        """As ``hold.Guest``: it is known to have. libvirt that is away tells nothing."""
        return self._ended(unknown=False)

    def _ended(self, *, unknown: bool) -> bool:
        try:
            return self.domain.ask(lambda each: each.state())[0] in _OFF
        except wire.Gone:
            return True
        except errors.Unreachable:
            return unknown

    @property
    def status(self) -> str:
        """In QEMU's words; empty when it has ended."""
        try:
            state, why = self.domain.ask(lambda each: each.state())
        except errors.Unreachable:
            return ""
        return _PAUSED.get(why, "paused") if state == libvirt.VIR_DOMAIN_PAUSED else "running"

    @property
    def runs(self) -> bool:
        """As ``hold.Guest``, with the next two."""
        state, why = self.domain.ask(lambda each: each.state())
        held = state == libvirt.VIR_DOMAIN_PAUSED and why == libvirt.VIR_DOMAIN_PAUSED_IOERROR
        return bool(held or state == libvirt.VIR_DOMAIN_RUNNING)

    def stop(self) -> None:
        self.domain.order(lambda each: each.suspend())

    def go_on(self) -> None:
        """Also where it does already, as an order whose answer was lost had come."""
        try:
            self.domain.order(lambda each: each.resume())
        except wire.Failed:
            if self.domain.ask(lambda each: each.state())[0] != libvirt.VIR_DOMAIN_RUNNING:
                raise

    def resume(self) -> None:
        with contextlib.suppress(wire.Failed):
            self.go_on()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within this time, or libvirt went away and does not come back."""
        deadline = time.monotonic() + seconds
        while not self._ended(unknown=True):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def power_off(self, seconds: float) -> bool:
        """As by the power button."""
        with contextlib.suppress(errors.HeadstartError):
            self.domain.order(lambda each: each.shutdown())
        return self.wait(seconds)

    @property
    def stays(self) -> bool:
        return self._kept

    def let_go(self) -> None:
        self._kept = True

    def close(self) -> None:
        if not self._kept:
            with contextlib.suppress(errors.HeadstartError):
                self.domain.order(lambda each: each.destroy())
        self.domain.close()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def __enter__(self) -> DomainInstance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
