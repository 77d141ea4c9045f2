"""Who delivered false blocks is told, and is not used any longer."""

from __future__ import annotations

from dataclasses import dataclass, field

from headstart import units
from headstart.backup.context import Context
from headstart.state import appliances
from headstart.state.values import AGENT, Distrust


@dataclass(frozen=True, slots=True)
class Found:
    """Blocks that were false, of so many that were compared; bytes that were false, and that are read again."""

    count: int
    compared: int
    false_bytes: int
    again_bytes: int


@dataclass(slots=True)
class Blamed:
    """Who reads nothing of a VM in this run, and why: its ``agent``, and ``appliances`` by name. What each kind had
    delivered and the audit found false in this run, in bytes."""

    context: Context
    vm: str
    agent: Distrust | None = None
    appliances: set[str] = field(default_factory=set)
    agent_bytes: int = 0
    appliance_bytes: int = 0

    def add(self, whose: int, found: Found, *, lasting: bool) -> str:
        """Returns what the user should know. ``whose``: the agent's, or the number of an appliance. ``lasting``: not
        only in this run."""
        reason = f"{found.count} of {found.compared} blocks of it that were compared were not what the disks held"
        distrust = Distrust(self.context.clock(), reason)
        again = f"; all that is from it ({units.format_bytes(found.again_bytes)}) is read from outside"
        if whose == AGENT:
            self.agent_bytes += found.false_bytes
            return self._add_agent(distrust, again, lasting=lasting)
        self.appliance_bytes += found.false_bytes
        return self._add_appliance(whose, distrust, again, lasting=lasting)

    def _add_agent(self, distrust: Distrust, again: str, *, lasting: bool) -> str:
        self.agent = distrust
        said = f"the agent in the guest delivered false blocks: {distrust.reason}{again}"
        if lasting:
            self.context.journal.distrust(self.vm, distrust)
            said += f", and it is not used again until 'headstart agent trust {self.vm}'"
        return said

    def _add_appliance(self, number: int, distrust: Distrust, again: str, *, lasting: bool) -> str:
        """Of an appliance that nobody knows any longer: it cannot be told which."""
        journal = self.context.journal
        name = appliances.names(journal).get(number, "")
        said = f"the appliance {name or f'with number {number}'} delivered false blocks: {distrust.reason}{again}"
        if name:
            self.appliances.add(name)
        if lasting and name:
            appliances.distrust(journal, name, distrust)
            said += f", and it is not used again by this host until 'headstart appliance trust {name}'"
        return said
