"""What a rehearsal sees of the VM that it has started, be it of plain QEMU or of libvirt's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from headstart import errors
from headstart.guest import links
from headstart.guest.channel import Channel
from headstart.restore.booting.attendance import Running
from headstart.restore.booting.boot import Booted
from headstart.restore.serving.serving import Serving
from headstart.wire.qga import Qga

#: An agent that is there answers at once.
ASK_SECONDS = 3.0


class Asked(Protocol):
    """qemu-guest-agent, however it is reached."""

    def execute(self, command: str, seconds: float, arguments: Mapping[str, Any] | None = None) -> Any:
        """Raises ``Unreachable`` when it does not answer in time, or with an error."""


class Stage(Protocol):
    """``instance`` has not begun to run. ``consoles`` are files that get what the guest writes on serial ports."""

    @property
    def instance(self) -> Running: ...

    @property
    def served(self) -> Serving: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def consoles(self) -> tuple[Path, ...]: ...

    @property
    def has_qga(self) -> bool:
        """There is a channel for qemu-guest-agent."""

    @property
    def has_agent(self) -> bool:
        """There is a channel for it, or for an agent of ours."""

    def qga(self) -> AbstractContextManager[Asked]:
        """Raises ``Unreachable``."""

    def answers(self) -> bool:
        """Whether an agent does, now."""

    def screenshot(self) -> bytes:
        """PNG; empty for a VM without a screen, or that has ended."""

    def last_words(self) -> str:
        """Why it has ended, as far as that is known."""


class QemuStage:
    """A ``Stage``."""

    def __init__(self, booted: Booted) -> None:
        self.instance = booted.instance
        self.served = booted.served
        self.notes = booted.notes
        self.consoles = booted.derived.consoles
        self._agent = booted.derived.agent
        self._qga = booted.derived.qga
        self._picture = booted.derived.pid_file.with_name("screen.png")

    @property
    def has_qga(self) -> bool:
        return self._qga is not None

    @property
    def has_agent(self) -> bool:
        return self._qga is not None or self._agent is not None

    @contextlib.contextmanager
    def qga(self) -> Iterator[Asked]:
        if self._qga is None:
            raise errors.Unreachable("There is no channel to qemu-guest-agent.")
        with Qga(self._qga, sync_seconds=ASK_SECONDS) as found:
            yield found

    def answers(self) -> bool:
        with contextlib.suppress(errors.Unreachable), self.qga():
            return True
        if self._agent is not None:
            with (
                contextlib.suppress(errors.Unreachable),
                Channel(links.connect(str(self._agent)), seconds=ASK_SECONDS, any_protocol=True),
            ):
                return True
        return False

    def screenshot(self) -> bytes:
        try:
            self.instance.qmp.execute("screendump", filename=str(self._picture), format="png")
            return self._picture.read_bytes()
        except (errors.HeadstartError, OSError):
            return b""

    def last_words(self) -> str:
        return self.instance.last_words
