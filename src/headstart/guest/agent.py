"""agentd as the rest of Headstart sees it: a map of the guest, and readers of disks that are proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headstart.blocks import Blocks
from headstart.guest import devices, links, mapping, renewal, trimming
from headstart.guest.channel import Channel, Refused
from headstart.guest.devices import GuestMap
from headstart.guest.filters import Filters
from headstart.guest.freezing import AgentFreezer
from headstart.guest.mapping import Unproved
from headstart.guest.reader import AgentReader
from headstart.guest.trimming import Trimmed
from headstart.hypervisor.inventory import Disk
from headstart.reading import Reader


class Agent:
    """One session. A context manager. Its proofs are of this session: another guest may be behind the next."""

    def __init__(self, channel: Channel) -> None:
        """Owns ``channel``."""
        self._channel = channel
        self._map: GuestMap | None = None
        self._proved: dict[str, str] = {}
        self._patience = mapping.Patience()
        self._watched: int | None = None

    def map(self) -> GuestMap:
        """As it is now. Raises ``Lost``."""
        self._map = devices.parse(self._channel.ask("map"))
        return self._map

    def prove(self, disk: Disk, reader: Reader, within: Blocks) -> str:
        """Which device of the guest the disk is, by blocks of ``mapping.BLOCK`` bytes ``within`` what ``reader`` reads
        from outside.

        Raises ``Unproved``, ``Lost``."""
        if disk.name not in self._proved:
            guest = self._map or self.map()
            found = mapping.candidates(disk, guest)
            taken = [each for each in found if each.name not in self._proved.values()]
            self._proved[disk.name] = mapping.prove(self._channel, disk, taken, reader, within, self._patience)
        return self._proved[disk.name]

    def reader(self, disk: Disk) -> AgentReader:
        """The disk through the guest. Raises ``Unproved`` if it was not proved."""
        if disk.name not in self._proved:
            raise Unproved("it was not proved")
        return AgentReader(self._channel, {"disk": self._proved[disk.name]}, disk.size)

    @property
    def proved(self) -> Mapping[str, str]:
        """Device by disk."""
        return dict(self._proved)

    def watch(self, seconds: float = 1.0) -> None:
        """Have the guest tell how busy it is, every so often; once in a session. Raises ``Lost``."""
        if self._watched is None:
            self._watched = self._channel.follow("figures", seconds=seconds)

    def latest(self) -> dict[str, Any] | None:
        """The newest figures that have come, see ``agentd.figures``: the guest's word. None where there are none since
        the last call. Does not wait. Raises ``Lost``."""
        if self._watched is None:
            return None
        try:
            return self._channel.newest(self._watched)
        except Refused:
            # It cannot tell; nor will it.
            return None

    def pump(self, seconds: float) -> None:
        """Take in what arrives, for so long: figures come as well while nothing is read. Raises ``Lost``."""
        self._channel.pump(seconds)

    def attend(self, call: Callable[[], None]) -> None:
        """``call`` is called while a read waits for the guest, see ``Channel.attend``."""
        self._channel.attend = call

    def filters(self) -> Filters:
        """What records changes in the guest."""
        return Filters(self._channel)

    def device(self, name: str, size: int) -> AgentReader:
        """A device of the guest that nobody has proved, nor could: its word."""
        return AgentReader(self._channel, {"device": name}, size)

    def freezer(self) -> AgentFreezer:
        """While it is used, nothing else of this session is."""
        return AgentFreezer(self._channel)

    def trim(self, seconds: float) -> list[Trimmed]:
        """See ``trimming.through_agent``."""
        return trimming.through_agent(self._channel, seconds)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def connect(address: str) -> Agent:
    """An agent of this release or of a newer one; an older one is renewed, see ``renewal``.

    ``address`` as in ``links``. Raises ``Unreachable``, ``Unsupported``, ``Usage``."""
    place = links.parse(address)
    return Agent(renewal.open_channel(place.connect, secret=place.secret))
