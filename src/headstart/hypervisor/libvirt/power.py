"""The power of a domain of libvirt's."""

from __future__ import annotations

import libvirt

from headstart import errors
from headstart.hypervisor import power
from headstart.hypervisor.libvirt import offline
from headstart.wire.libvirt import Domain

_END_SECONDS = 60.0


class LibvirtPower:
    """``headstart.hypervisor.power.Power``."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._name = name

    def runs(self) -> bool:
        with Domain(self._uri, self._name) as domain:
            return not offline.is_off(domain)

    def require(self) -> None:
        with Domain(self._uri, self._name) as domain:
            if not domain.ask(lambda each: each.isPersistent()):
                raise errors.Usage("The VM is transient: it would be gone when it is shut down. Define it first.")
            if domain.ask(lambda each: each.hasManagedSaveImage()):
                raise errors.Busy(
                    "The VM is off with its memory saved (virsh managedsave), which belongs to its disks as they are:"
                    " start it, or give the saved memory up with 'virsh managedsave-remove'."
                )

    def memory(self) -> str:
        """libvirt knows."""
        return ""

    def recall(self, memory: str) -> None:
        """libvirt knows."""

    def shut_down(self, seconds: float, *, force: bool) -> None:
        with Domain(self._uri, self._name) as domain:
            if domain.ask(lambda each: each.state())[0] == libvirt.VIR_DOMAIN_RUNNING:
                domain.order(lambda each: each.shutdown())
                if power.wait(lambda: offline.is_off(domain), seconds):
                    return
            if not force:
                raise power.still_up(seconds)
            domain.order(lambda each: each.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL))
            if not power.wait(lambda: offline.is_off(domain), _END_SECONDS):
                raise errors.Busy("The VM does not end. Nothing was changed.")

    def start(self) -> str:
        with Domain(self._uri, self._name) as domain:
            if offline.is_off(domain):
                domain.order(lambda each: each.create())
        return ""
