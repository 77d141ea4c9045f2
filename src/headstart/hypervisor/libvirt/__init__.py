"""The driver for VMs of libvirt's: checkpoints and pull-mode backups, only through its API.

Whoever needs a part of it imports that where it is needed: the bindings are the distribution's, and a host without
libvirt has none. Importing raises ``Unsupported`` there.
"""

from __future__ import annotations

from headstart import errors

try:
    import libvirt  # noqa: F401 (whether it is there)
except ImportError as error:
    raise errors.Unsupported(
        "Python's bindings of libvirt are not installed: install python3-libvirt (of this name on Debian, Ubuntu and"
        " Fedora), and let Headstart run with the distribution's Python."
    ) from error
