"""What keeps writing in the guest while the product works: the host's handles."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import NamedTuple, Self

from tests.kit.control import TIMEOUT, Control
from tests.kit.inguest import records


@dataclass(frozen=True, slots=True)
class Stats:
    """Writes with their fsync, of those that finished in a window of time; bytes since the workload began.

    Measured by the guest's clock, which stands still while QEMU is stopped: add the pauses, if any.
    """

    count: int
    p50: float | None
    p99: float | None
    longest: float | None
    written: int
    distinct: int
    running: bool


class Workload:
    """A running process in the guest; as a context manager it is stopped at the end. Times: ``time.monotonic()``."""

    def __init__(self, control: Control, number: int) -> None:
        self._control = control
        self.number = number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            # The VM may serve other tests; and it may be gone.
            with contextlib.suppress(Exception):
                self._control.stop_workload(self.number)

    def stats(self, since: float | None = None, until: float | None = None) -> Stats:
        return Stats(**self._control.workload_stats(self.number, since, until))

    def samples(self, since: float | None = None, until: float | None = None) -> list[tuple[float, float]]:
        """For each write with its fsync: when it was finished, and how long it took."""
        return self._control.workload_samples(self.number, since, until)

    def stop(self) -> None:
        """End it after its current write; an error if it had failed."""
        status = self._control.stop_workload(self.number)
        assert status == 0, f"the workload ended with status {status}"


class Region(NamedTuple):
    """What to change: a file (made if missing), or part of a device under ``/dev``, past the cache."""

    path: str
    offset: int
    length: int


class Churn(Workload):
    def set_rate(self, rate: float | None) -> None:
        """Bytes per second from now on; None: as fast as it goes."""
        self._control.call("workload_rate", workload=self.number, rate=rate)

    def wait_changed(self, distinct: int, timeout: float = TIMEOUT) -> None:
        """Wait until so many distinct bytes were changed."""
        self._control.wait_progress(self.number, distinct, timeout)


def churn(
    control: Control,
    regions: Sequence[Region],
    *,
    rate: float | None = None,
    write_size: int = 64 * 1024,
    sync_every: int = 1,
    hot: float = 0.05,
    hot_share: float = 0.5,
    compressible: float = 0.5,
    seed: int = 1,
) -> Churn:
    """Change every block of ``write_size`` bytes of the regions once, and the hot ones again and again, for ever.

    ``hot`` is the share of blocks that are hot, ``hot_share`` the share of writes that goes to them (at most, until
    all others have been changed; then all), ``sync_every`` the number of writes before each fsync.
    """
    options = {
        "targets": [list(region) for region in regions],
        "rate": rate,
        "write_size": write_size,
        "sync_every": sync_every,
        "hot": hot,
        "hot_share": hot_share,
        "compressible": compressible,
        "seed": seed,
    }
    return Churn(control, control.start_workload("churn", options))


class Ledger(Workload):
    """See ``tests.kit.ledger`` for what its records prove."""

    def __init__(self, control: Control, number: int, layout: records.Layout) -> None:
        super().__init__(control, number)
        self.layout = layout

    def acknowledged(self) -> int:
        """The newest record known to be on its disk. The guest may be ahead of what was told, until ``stop()``."""
        number = self._control.progress(self.number)
        assert number is not None, "the guest has been reset: ask before"
        return number

    def wait_acknowledged(self, number: int, timeout: float = TIMEOUT) -> None:
        self._control.wait_progress(self.number, number, timeout)


def ledger(
    control: Control,
    devices: Sequence[str],
    *,
    seed: int = 1,
    offset: int = 0,
    slots: int = 1000,
    record: int = 12 * 1024,
    first: int = 1,
    pause: float = 0.0,
) -> Ledger:
    """Write numbered records in turn to the devices, each region being ``slots * record`` bytes from ``offset`` on.

    The region is cleared first. With ``first`` an old ledger goes on: one more than ``acknowledged()`` after its
    ``stop()``, and after a power cut one more than the last record that ``tests.kit.ledger.check`` finds.
    """
    layout = records.Layout(seed, len(devices), offset, slots, record)
    options = {**asdict(layout), "devices": list(devices), "first": first, "pause": pause}
    del options["disks"]
    return Ledger(control, control.start_workload("ledger", options), layout)
