"""A disk goes over when its job can do that. Over a monitor that tells of such a job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headstart.hypervisor.qemu import jobs
from headstart.restore.booting import moving

#: Of a job that was ready before a guest's write to the new image failed; as QEMU tells it.
HELD = {"status": "standby", "ready": True, "io-status": "nospace", "offset": 1, "len": 2}
WORKS = {**HELD, "status": "ready", "io-status": "ok"}


class Monitor:
    def __init__(self, **job: Any) -> None:
        self.job = job
        self.orders: list[str] = []

    def execute(self, command: str, /, **_: Any) -> Any:
        if command.startswith("query-"):
            return [dict(self.job)]
        self.orders.append(command)
        if command == "block-job-resume":
            self.job.update(WORKS)
        return {}


def test_one_that_a_write_holds_after_it_was_ready_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stop the guest, and not go over."""
    monkeypatch.setattr(moving, "RETRY_SECONDS", 0.0)
    monitor: Any = Monitor(**HELD)
    attachment: Any = SimpleNamespace(disk=SimpleNamespace(name="vda"))
    move = moving._Move(monitor, attachment, None)  # type: ignore[arg-type]
    monitor.job["device"] = move._job
    assert [move.is_ready(lambda *_: None) for _ in range(3)] == [False, False, True]
    assert monitor.orders == ["block-job-resume"]


@pytest.mark.parametrize("status", ["paused", "standby"])
def test_a_job_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    monkeypatch.setattr(jobs, "PAUSED_SECONDS", 0.05)
    monitor: Any = Monitor(**HELD | {"id": "moved", "status": status})
    assert "paused" in jobs.wait(monitor, "moved")
