"""Telling systemd how we are: sd_notify(3). Without systemd nobody listens, and nothing is told."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

from headstart import plain


class Notifier:
    def __init__(self, environment: Mapping[str, str]) -> None:
        given = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the null byte of an abstract name.
        self._address = "\0" + given[1:] if given.startswith("@") else given
        self.watchdog_seconds = _watchdog(environment)

    def tell(self, **values: str | int) -> None:
        """``tell(READY=1, STATUS="...")``. Best effort."""
        if not self._address:
            return
        message = "\n".join(f"{name}={plain.line(str(value))}" for name, value in values.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), self._address)

    def reloading(self) -> None:
        """Followed by ``READY=1`` when that is done."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """Seconds within which systemd wants to hear of us; None: it does not."""
    try:
        for_us = int(environment.get("WATCHDOG_PID", os.getpid())) == os.getpid()
        microseconds = int(environment.get("WATCHDOG_USEC", 0))
    except ValueError:
        return None
    return microseconds / 1e6 if for_us and microseconds > 0 else None
