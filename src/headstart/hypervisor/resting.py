"""What a machine that is off has of ``headstart.hypervisor.contract.Machine``, whoever reads its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Action, LiveReader
from headstart.hypervisor.counters import Counters

OFF = "The VM is off"


class Resting:
    """Nothing can be begun or asked of it but what its images hold."""

    agent = ""
    off = True

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        """As ``Bitmaps.recorded``."""
        raise NotImplementedError

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return {disk: Blocks().union(*each.values()) for disk, each in self.recorded(names).items()}

    def awaken(self) -> tuple[str, ...]:
        return ()

    def reclaim(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        return ()

    def recover(self) -> tuple[str, ...]:
        return ()

    def keepsakes(self) -> Mapping[str, str]:
        raise errors.Unreachable(f"{OFF}.")

    def transact(self, actions: Sequence[Action]) -> None:
        raise errors.Unreachable(f"{OFF}: its bitmaps stay as they are.")

    def settle(self, disks: Sequence[str]) -> None:
        """Nothing was begun."""

    def flush(self, disks: Sequence[str]) -> None:
        """It has ended."""

    def live(self, disks: Sequence[str]) -> AbstractContextManager[Mapping[str, LiveReader]]:
        raise errors.Unreachable(f"{OFF}.")

    def let_move(self) -> bool:
        return False

    def let_stay(self) -> None:
        """It is nowhere."""

    def counters(self) -> Counters:
        raise errors.Unreachable(f"{OFF}.")
