"""Acting at the steps of a completion, from the test's own process.

A hook is a command. This one asks through one fifo, waits at the other, and ends with the status that comes back::

    completion  --starts-->  hook  --facts, asked-->  the test's thread: action(facts)  --status-->  hook  -->
"""

from __future__ import annotations

import os
import shlex
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from headstart.backup.hooks import Hook

#: What the variables with the URIs of a point in time begin with.
NBD = "HEADSTART_NBD_"

#: Gets the hook's environment, as far as it is of Headstart.
Action = Callable[[Mapping[str, str]], None]


class Step:
    """A context manager; ``hook`` is for the completion inside. An error in the action is raised at the end."""

    def __init__(self, event: str, action: Action, folder: Path) -> None:
        self._action = action
        self._error: BaseException | None = None
        own = Path(tempfile.mkdtemp(prefix=f"{event}-", dir=folder))
        self._facts = own / "facts"
        # Open for both ways: neither end waits for the other to come, and nothing is lost if it comes late.
        for name in ("asked", "answer"):
            os.mkfifo(own / name)
        self._asked = os.open(own / "asked", os.O_RDWR)
        self._answer = os.open(own / "answer", os.O_RDWR)
        self._thread = threading.Thread(target=self._serve, name=f"step {event}", daemon=True)
        facts, asked, answer = (shlex.quote(str(own / name)) for name in ("facts", "asked", "answer"))
        self.hook = Hook(event, f"env -0 > {facts}; echo > {asked}; read status < {answer}; exit $status")

    def _serve(self) -> None:
        while os.read(self._asked, 1) == b"\n":
            status = 0
            try:
                self._action(self._environment())
            except BaseException as error:
                self._error, status = error, 1
            os.write(self._answer, b"%d\n" % status)

    def _environment(self) -> dict[str, str]:
        pairs = (entry.partition("=") for entry in self._facts.read_text().split("\0") if entry)
        return {name: value for name, _, value in pairs if name.startswith("HEADSTART_")}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._asked, b".")
        self._thread.join()
        os.close(self._asked)
        os.close(self._answer)
        if self._error is not None:
            raise self._error


def variable(disk: str) -> str:
    """A disk's name as it stands in the name of its variable."""
    return "".join(letter if letter.isalnum() else "_" for letter in disk).upper()
