"""A VM that answers: what a run knows of it, and asks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from headstart import errors
from headstart.backup.bases import Bases
from headstart.backup.blame import Blamed
from headstart.backup.context import Context
from headstart.backup.inside import Inside
from headstart.blocks import Blocks
from headstart.hypervisor.contract import GuestFreezer, Machine
from headstart.hypervisor.inventory import Disk, Inventory, Recorder
from headstart.reading import Reader
from headstart.state.values import Tracked, Vm
from headstart.tracking import choice
from headstart.tracking.choice import Choice
from headstart.tracking.mark import Mark, Standing
from headstart.tracking.tracker import Tracker
from headstart.volumes import selection


@dataclass(slots=True)
class Contact:
    """A VM that answers, during one run. ``notes`` is what the user should be told."""

    context: Context
    vm: Vm
    machine: Machine
    inventory: Inventory
    tracker: Tracker
    nonces: dict[str, str]
    inside: Inside
    bases: Bases
    blamed: Blamed
    notes: list[str] = field(default_factory=list)
    #: By disk, what will probably be left out; None: nobody has looked yet (``looking.spared``).
    spared: dict[str, Blocks] | None = None

    @property
    def name(self) -> str:
        return self.vm.name

    @property
    def rules(self) -> list[tuple[str, ...]]:
        """Lists of patterns that may leave volumes out."""
        return [each for each in (self.vm.volumes, self.context.volumes) if selection.looks_inside(each)]

    def note(self, text: str) -> None:
        """Told once, also where several rounds of a run find the same."""
        if text not in self.notes:
            self.notes.append(text)

    def freezer(self) -> GuestFreezer | None:
        """The agent, where the VM was added with one."""
        if not self.inside.expected:
            return None
        try:
            return self.inside.agent().freezer()
        except errors.HeadstartError as error:
            self.note(f"the agent does not help to freeze: {error}")
            return None

    def disk(self, name: str) -> Disk:
        found = self.inventory.disk(name)
        if found is None:
            raise errors.NotFound(f"VM '{self.name}' has no disk '{name}' any longer.")
        return found

    def require_size(self, name: str, reader: Reader) -> None:
        """Raises ``Busy`` if the disk was resized since it was looked at: its bitmaps do not tell."""
        size = self.disk(name).size
        if reader.size != size:
            raise errors.Busy(
                f"Disk {name} was resized from {size} to {reader.size} bytes just now. Try again: then it is compared.",
                disk=name,
            )

    def untracked(self, name: str) -> bool:
        """Only comparing tells what changed on it."""
        return bool(self.disk(name).untracked)

    def choice(self, name: str) -> Choice:
        """How the changes of a disk are learned, and why so."""
        return choice.choose(self.vm.track, self.disk(name))

    def layered(self, names: Iterable[str]) -> list[str]:
        """Those of the disks whose changes overlays record."""
        return [name for name in names if self.disk(name).recorder is Recorder.OVERLAY and not self.untracked(name)]

    def make_lasting(self, names: Iterable[str]) -> None:
        """What was seen of these disks up to now is so, too, after the VM's process was killed, or the power cut; or
        nothing of it is known then, not even that it was copied."""
        recorders = (Recorder.OVERLAY, Recorder.ERA)
        chosen = [name for name in names if self.disk(name).recorder in recorders and not self.untracked(name)]
        if chosen:
            self.machine.flush(chosen)

    def require_standing(self, marks: Mapping[str, Mark]) -> None:
        """Raises ``Busy`` unless these record where the guest's writes go. What was read before may come from
        somebody's new overlay, and be gone with it: no mark below would tell."""
        standing = self.tracker.standing()
        for name, mark in marks.items():
            if self.untracked(name):
                continue
            if standing.get(name, {}).get(mark) is not Standing.RECORDING:
                raise errors.Busy(
                    f"Somebody changed the images of disk {name} just now (a snapshot?): try again.",
                    disk=name,
                )

    def tracked(self) -> dict[str, Tracked]:
        """What is known of the disks that the VM has now."""
        known = self.context.journal.tracked(self.name)
        return {disk.name: known[disk.name] for disk in self.inventory.disks if disk.name in known}
