"""``headstart server work``: processes that work on a server's jobs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit import nursery


@dataclass(slots=True)
class Worker:
    """A context manager: it runs inside. ``options`` are those of its servers, with their ``--data``."""

    folder: Path
    options: tuple[str, ...]
    number: int = 0
    name: str = ""
    process: nursery.Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        command = ["--json", "server", "work", "--data", str(self.folder), *self.options]
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        with open(self._log, "a") as log:
            self.process = nursery.start(command, kept, log)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()[-4000:]
        self.name = json.loads(line)["worker"]

    def stop(self) -> int | None:
        """As systemd does it; its exit status."""
        return self._end(kill=False)

    def kill(self) -> None:
        self._end(kill=True)

    def _end(self, *, kill: bool) -> int | None:
        if self.process is None:
            return None
        (self.process.kill if kill else self.process.terminate)()
        status = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    @property
    def _log(self) -> Path:
        return self.folder / f"worker-{self.number}.log"

    def log(self) -> str:
        return self._log.read_text()
