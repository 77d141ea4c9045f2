"""Running checks: none that fails or hangs keeps the others from being run."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from headstart import errors, units
from headstart.host.doctor.finding import Check, Finding, Level, of_error


def run(check: Check) -> list[Finding]:
    """In a thread of its own, which is left behind where it does not end in time: it keeps no process from ending."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.extend(_look(check)), name=f"check {check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    if thread.is_alive():
        found = [
            Finding(
                check.name,
                Level.PROBLEM,
                f"no answer within {units.format_seconds(check.seconds)}",
                "What this check has to ask hangs: a file system, a server, QEMU. See which, and look again.",
            )
        ]
    return [replace(each, vm=check.vm) for each in found]


def _look(check: Check) -> list[Finding]:
    """What was found before something failed counts."""
    found: list[Finding] = []
    try:
        _add(found, check.look())
    except errors.HeadstartError as error:
        found.append(of_error(check.name, error))
    except OSError as error:
        found.append(Finding(check.name, Level.PROBLEM, f"this could not be looked at: {error}"))
    except Exception as error:
        # A mistake of this check's must not hide what the others see.
        said = f"this check failed in a way that it should not: {type(error).__name__}: {error}"
        found.append(Finding(check.name, Level.WARNING, said, "Report it."))
    return found


def _add(found: list[Finding], more: Iterable[Finding]) -> None:
    for each in more:
        found.append(each)  # noqa: PERF402 (what came before an error is kept)
