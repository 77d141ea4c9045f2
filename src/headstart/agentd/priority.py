"""The lowest priority there is, for CPU and for disks: the guest comes first."""

import contextlib
import ctypes
import os
import platform
from typing import Iterator

#: ioprio_set(2), by machine; there is no function for it in the C library.
_NUMBERS = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282, "i686": 289, "armv7l": 314}
_WHO_PROCESS = 1
_NONE, _IDLE = 0, 3 << 13


def lower() -> None:
    """Best effort: a guest that refuses gets less peace and the same blocks."""
    try:
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        pass
    _set_disk(_IDLE)


def normal() -> None:
    """For whoever must not wait: it thaws."""
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except (OSError, AttributeError):
        pass
    _set_disk(_NONE)


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """For what others wait for, and is done in a moment."""
    was_low = getattr(os, "sched_getscheduler", lambda _: None)(0) == getattr(os, "SCHED_IDLE", -1)
    normal()
    try:
        yield
    finally:
        if was_low:
            lower()


def _set_disk(priority: int) -> None:
    number = _NUMBERS.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, priority)
