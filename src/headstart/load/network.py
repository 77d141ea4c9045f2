"""A network interface of the host: which one leads to the store, what goes through it, what it carries."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

#: Linux, include/uapi/linux/sockios.h.
_SIOCGIFADDR = 0x8915
#: Any port: nothing is sent.
_DISCARD = 9
#: Linux, Documentation/ABI/testing/sysfs-class-net: the unit of a speed, in bytes.
_MEGABIT = 1000 * 1000 / 8


@dataclass(frozen=True, slots=True)
class Network:
    """Bytes; ``speed`` in bytes a second."""

    received: float
    sent: float
    speed: float


def look(interface: str) -> Network | None:
    """None where the kernel knows no speed, as of loopback and most virtual cards."""
    folder = Path("/sys/class/net", interface)
    try:
        speed = int((folder / "speed").read_text())
        received, sent = (int((folder / f"statistics/{way}_bytes").read_text()) for way in ("rx", "tx"))
    except (OSError, ValueError):
        return None
    return Network(received, sent, speed * _MEGABIT) if speed > 0 else None


def interface_towards(host: str) -> str:
    """The network interface by which packets to a host leave; empty if that cannot be told."""
    with contextlib.suppress(OSError):
        family, _, _, _, place = socket.getaddrinfo(host, _DISCARD, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Sends nothing, and has the kernel choose a way.
            probe.connect(place)
            own = probe.getsockname()[0]
        return _bearer(own)
    return ""


def _bearer(address: str) -> str:
    """The interface that has an address."""
    wanted = ipaddress.ip_address(address.partition("%")[0])
    if wanted.version == 6:
        return _bearer_of_six(wanted)
    for _, name in socket.if_nameindex():
        if _address(name) == wanted.packed:
            return name
    return ""


def _address(interface: str) -> bytes:
    """The IPv4 address; empty without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
        # struct ifreq: the name, then a sockaddr_in, whose address stands after family and port.
        answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        return answer[20:24]
    return b""


def _bearer_of_six(wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """/proc/net/if_inet6: address, index, prefix, scope, flags, name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            fields = line.split()
            if bytes.fromhex(fields[0]) == wanted.packed:
                return fields[5]
    return ""
