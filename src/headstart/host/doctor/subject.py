"""What the doctor is given: places as the options, the environment and the configuration name them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.host.policy import Config
from headstart.state.journal import Journal
from headstart.state.values import Vm

DATABASE = "state.sqlite3"


@dataclass(frozen=True, slots=True)
class Subject:
    """``url``: of the repository; None: nobody named one. ``password``: None where nobody named one; may take long, and
    raises ``Usage``. ``password_file``: where it is read, if it is a file. ``config``: the configuration, or the
    error that it is."""

    state: Path
    scratch: Path
    url: str | None
    password: Callable[[], bytes | None]
    password_file: Path | None
    config_file: Path
    config: Config | errors.HeadstartError | None
    clock: Callable[[], float] = time.time

    @property
    def there(self) -> bool:
        """There is a state. Raises ``OSError`` where that cannot be seen."""
        return (self.state / DATABASE).exists()

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        """Not without ``there``: opening makes it."""
        with Journal.open(self.state) as journal:
            yield journal

    def vms(self) -> list[Vm]:
        if not self.there:
            return []
        with self.journal() as journal:
            return journal.vms()
