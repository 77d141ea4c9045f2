"""agentd as the rest of Headstart sees it: a map of the guest, and readers of disks that are proved."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from headstart.guest import devices, mapping
from headstart.guest.channel import Channel
from headstart.guest.devices import GuestMap
from headstart.guest.mapping import Unproved
from headstart.guest.reader import AgentReader
from headstart.hypervisor.contract import Disk, LiveReader


class Agent:
    """One session. A context manager. Its proofs are of this session: another guest may be behind the next."""

    def __init__(self, link: socket.socket, secret: str = "") -> None:
        """Raises ``Lost`` if nobody answers."""
        self.channel = Channel(link, secret=secret)
        self._map: GuestMap | None = None
        self._proved: dict[str, str] = {}

    def map(self) -> GuestMap:
        """As it is now. Raises ``Lost``."""
        self._map = devices.parse(self.channel.ask("map"))
        return self._map

    def prove(self, disk: Disk, reader: LiveReader) -> str:
        """Which device of the guest the disk is. Raises ``Unproved``, ``Lost``."""
        if disk.name not in self._proved:
            guest = self._map or self.map()
            found = mapping.candidates(disk, guest)
            taken = [each for each in found if each.name not in self._proved.values()]
            self._proved[disk.name] = mapping.prove(self.channel, disk, taken, reader, reader.allocated())
        return self._proved[disk.name]

    def reader(self, disk: Disk) -> AgentReader:
        """The disk through the guest. Raises ``Unproved`` if it was not proved."""
        if disk.name not in self._proved:
            raise Unproved("it was not proved")
        return AgentReader(self.channel, {"disk": self._proved[disk.name]}, disk.size)

    @property
    def proved(self) -> Mapping[str, str]:
        """Device by disk."""
        return dict(self._proved)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
