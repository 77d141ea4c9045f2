"""Signs of life of a VM that was started: an agent that answers, or words on the console."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from headstart import errors
from headstart.restore.rehearsing.stage import Stage

#: What a Linux that has started asks on its console: a word of its own (``sulogin:`` is of an emergency shell), behind
#: a space, a line's end, or what clears the screen or sets colours.
PROMPT = r"(?:^|\s|\x1b\[[0-9;?]*[A-Za-z])login:"
#: The end of a console, in which a pattern is looked for.
CONSOLE_LIMIT = 1 << 18


class Awaited(Enum):
    """``AGENT``: qemu-guest-agent or ours answers. ``CONSOLE``: it asks for a login. ``PATTERN``: words on it."""

    AGENT = "agent"
    CONSOLE = "console"
    PATTERN = "pattern"


class Signs:
    """What is looked for. Not waited for: ``seen`` looks once."""

    def __init__(self, stage: Stage, awaited: Awaited | None, pattern: str) -> None:
        """``awaited`` None: the agent, where the VM has a channel for one, else the console. ``pattern``: a regular
        expression. Raises ``Unsupported`` for what this VM cannot give."""
        self.awaited = awaited or (Awaited.AGENT if stage.has_agent else Awaited.CONSOLE)
        self._stage = stage
        self._pattern = re.compile(pattern if self.awaited is Awaited.PATTERN else PROMPT)
        if self.awaited is Awaited.AGENT and not stage.has_agent:
            raise errors.Unsupported("The VM has no channel to an agent: wait for the console, or for a pattern there.")
        if self.awaited is not Awaited.AGENT and not stage.consoles:
            raise errors.Unsupported("The VM has no serial console: wait for the agent.")

    def seen(self) -> bool:
        if self.awaited is Awaited.AGENT:
            return self._stage.answers()
        return self._pattern.search(console(self._stage.consoles)) is not None


def compiled(pattern: str) -> str:
    """``pattern`` itself; ``Usage`` when it is none."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise errors.Usage(f"{pattern!r} is no regular expression: {error}.") from None
    return pattern


def console(paths: Iterable[Path]) -> str:
    """The end of what the guest has written on its consoles."""
    return "\n".join(map(_end_of, paths))


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - CONSOLE_LIMIT))
            return file.read(CONSOLE_LIMIT).decode(errors="replace")
    except OSError:
        return ""
