"""Signs of life of a VM that was started: an agent that answers, or words on the console."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from headstart import errors
from headstart.restore.rehearsing import signs_process
from headstart.restore.rehearsing.stage import Stage

#: What a Linux that has started asks on its console: a word of its own (``sulogin:`` is of an emergency shell), behind
#: a space, a line's end, or what clears the screen or sets colours.
PROMPT = r"(?:^|\s|\x1b\[[0-9;?]*[A-Za-z])login:"
#: The end of a console, in which a pattern is looked for.
CONSOLE_LIMIT = 1 << 18
#: For one search, where the processor has others to serve.
_SEARCH_SECONDS = 15.0
_SEARCHES = 3


class Awaited(Enum):
    """``AGENT``: qemu-guest-agent or ours answers. ``CONSOLE``: it asks for a login. ``PATTERN``: words on it."""

    AGENT = "agent"
    CONSOLE = "console"
    PATTERN = "pattern"


class Signs:
    """What is looked for. Not waited for: ``seen`` looks once."""

    def __init__(self, stage: Stage, awaited: Awaited | None, pattern: str) -> None:
        """``awaited`` None: the agent, where the VM has a channel for one, else the console. ``pattern``: a regular
        expression, for a line. Raises ``Unsupported`` for what this VM cannot give."""
        self.awaited = awaited or (Awaited.AGENT if stage.has_agent else Awaited.CONSOLE)
        self._stage = stage
        self._pattern = pattern
        self._searched = ""
        #: How often the same was searched.
        self._searches = 0
        #: The last search was given up.
        self.given_up = False
        if self.awaited is Awaited.AGENT and not stage.has_agent:
            raise errors.Unsupported("The VM has no channel to an agent: wait for the console, or for a pattern there.")
        if self.awaited is not Awaited.AGENT and not stage.consoles:
            raise errors.Unsupported("The VM has no serial console: wait for the agent.")

    def seen(self) -> bool:
        if self.awaited is Awaited.AGENT:
            return self._stage.answers()
        text = console(self._stage.consoles)
        if self.awaited is Awaited.CONSOLE:
            return re.search(PROMPT, text) is not None
        return self._is_new(text) and self._is_in(text)

    def _is_new(self, text: str) -> bool:
        """Also where a search was given up, a few times: the host may have been busy, and the guest says no more."""
        if text != self._searched:
            self._searched, self._searches = text, 0
        elif not (self.given_up and self._searches < _SEARCHES):
            return False
        self._searches += 1
        return True

    def _is_in(self, text: str) -> bool:
        """Another process looks: ``re`` holds this one as long as a search lasts, and no search has to end."""
        command = [sys.executable, "-I", "-S", str(Path(signs_process.__file__))]
        told = json.dumps([self._pattern, text]).encode()
        try:
            status = subprocess.run(
                command, input=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SEARCH_SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
        self.given_up = status not in (signs_process.FOUND, signs_process.NOT_FOUND)
        return status == signs_process.FOUND


def compiled(pattern: str) -> str:
    """``pattern`` itself; ``Usage`` when it is none, or is found where nothing was said."""
    try:
        found = re.search(pattern, "")
    except re.error as error:
        raise errors.Usage(f"{pattern!r} is no regular expression: {error}.") from None
    if found:
        raise errors.Usage(f"{pattern!r} is also in an empty line, and shows nothing: name words that must come.")
    return pattern


def console(paths: Iterable[Path]) -> str:
    """The end of what the guest has written on its consoles."""
    return "\n".join(map(_end_of, paths))


def _end_of(path: Path) -> str:
    """The folder may be QEMU's, whose links are not followed."""
    try:
        with open(path, "rb", opener=_opened_itself) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - CONSOLE_LIMIT))
            # Where it was cut there is a hole.
            return file.read(CONSOLE_LIMIT).replace(b"\0", b"").decode(errors="replace")
    except OSError:
        return ""


def _opened_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
