"""Entries of a log on stderr: each begins on a line of its own, and no other line looks like the beginning of one."""

from __future__ import annotations

import logging
from typing import Any

from headstart import plain

#: Characters. The journal cuts lines of more than 48 KiB into several entries (journald.conf(5), LineMax=).
_LONGEST = 8000
_INDENTED = "    "


class Entries(logging.Formatter):
    """Messages hold words of others, and those of exceptions more of them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = plain.joined(record.message, _LONGEST)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        told = super().formatException(ei).split("\n")
        return "\n".join(_INDENTED + plain.line(each, _LONGEST) for each in told)
