"""QEMU's block jobs, as far as they are ours."""

from __future__ import annotations

import contextlib
import time

from headstart import errors
from headstart.wire.qmp import CommandFailed, Qmp

POLL_SECONDS = 0.02
#: A cancelled job ends with its last request.
END_SECONDS = 30.0
#: QEMU itself pauses a job for moments, whenever the nodes around it are at rest.
PAUSED_SECONDS = 5.0
#: The second one is QEMU's word for a mirror that was ready before; it takes "job-complete", and does not do it.
_PAUSED = ("paused", "standby")


def status(qmp: Qmp, name: str) -> tuple[str, str]:
    """``(status, error)`` of a job; ``("null", "")`` when there is none of that name."""
    for job in qmp.execute("query-jobs"):
        if job["id"] == name:
            return job["status"], job.get("error", "")
    return "null", ""


def wait(qmp: Qmp, name: str) -> str:
    """Wait until a job is done, however long it works, and finalize it. Returns its error; empty if it succeeded."""
    worked = time.monotonic()
    while True:
        state, failure = status(qmp, name)
        if state == "concluded":
            return failure
        if state == "null":
            return "the job is gone: somebody cancelled it"
        if state == "pending":
            with contextlib.suppress(CommandFailed):  # cancelled meanwhile
                qmp.execute("job-finalize", id=name)
        if state not in _PAUSED:
            worked = time.monotonic()
        elif time.monotonic() - worked > PAUSED_SECONDS:
            return "the job was paused, by somebody or as a request failed"
        time.sleep(POLL_SECONDS)


def end(qmp: Qmp, name: str) -> None:
    """Cancel and dismiss a job and wait until it is gone. Gone already is fine."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        state, _ = status(qmp, name)
        if state == "null":
            return
        try:
            if state == "concluded":
                qmp.execute("job-dismiss", id=name)
            elif state != "aborting":
                qmp.execute("job-cancel", id=name)
        except CommandFailed:
            pass
        if time.monotonic() > deadline:
            raise errors.Busy(f"QEMU's job {name} does not end.")
        time.sleep(POLL_SECONDS)
