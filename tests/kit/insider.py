"""An agent inside a simulated guest: reads its disks as they are now, until its script says otherwise.

It stands where ``headstart.guest.agent.Agent`` does: what comes of the channel to a real one is tested with real ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from headstart import errors
from headstart.extents import Extent
from headstart.guest.channel import Lost, Refused
from headstart.hypervisor.inventory import Disk
from headstart.hypervisor.memory import MemoryVm
from headstart.hypervisor.memory.reader import MemoryReader
from headstart.reading import Reader
from tests.kit.script import AgentScript

#: Where simulated VMs have their agents.
ADDRESS = "inside"


class Insider:
    """One session."""

    def __init__(self, vm: MemoryVm, script: AgentScript) -> None:
        if script.vice == "is absent":
            raise errors.Unreachable("The agent in the guest does not answer.")
        self._vm = vm
        self._script = script
        self._pieces = 0
        self.proved: dict[str, str] = {}
        #: It has told a content that the disk did not have.
        self.lied = False

    def map(self) -> Mapping[str, str]:
        return self.proved

    def prove(self, disk: Disk, reader: Reader, within: list[Extent]) -> str:
        self._step("prove")
        return self.proved.setdefault(disk.name, disk.name)

    def reader(self, disk: Disk) -> MemoryReader:
        return MemoryReader(disk.size, self._vm.block_size, lambda block: self._content(disk.name, block), self._step)

    def _step(self, name: str) -> None:
        self._vm.step(f"the agent: {name}")
        self._pieces += 1
        process = self._vm.process
        if process is None or self._vm.paused or process.stopped_by:
            raise Lost("The agent in the guest has not answered for 30 s.")
        if self._pieces < self._script.number:
            return
        if self._script.vice == "vanishes":
            raise Lost("The channel to the agent in the guest was closed.")
        if self._script.vice == "refuses":
            raise Refused("failed", "cannot read")

    def _content(self, disk: str, block: int) -> int:
        if self._script.vice == "lies" and self._pieces >= self._script.number:
            self.lied = True
            return self._vm.fresh()
        return self._vm.drives[disk].content(block)

    def freezer(self) -> None:
        """Nobody here freezes file systems but the hypervisor."""

    def close(self) -> None:
        """Nothing is held."""
