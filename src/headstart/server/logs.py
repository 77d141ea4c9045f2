"""The server's log: a line of JSON for each entry, and one for each request; for people at a terminal, plain lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO

from headstart.logentries import Entries

#: What a record of Python's has of its own: all else was added by whoever wrote it.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
ACCESS = "headstart.access"
#: Each tells of every start what nobody asks for.
_QUIET = ("alembic", "uvicorn.error", "procrastinate")


class JsonLines(logging.Formatter):
    """One object a line; what a call added by ``extra`` stands beside time, level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class Plain(Entries):
    """With what was added at the end of the line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        more = " ".join(f"{name}={value}" for name, value in added(record).items())
        record.msg, record.args = f"{record.getMessage()} {more}".rstrip(), ()
        record.message = record.msg
        return super().formatMessage(record)


def added(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN and value is not None}


def begin(stream: IO[str]) -> None:
    """For the whole process."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Plain("%(asctime)s %(levelname)s %(message)s") if stream.isatty() else JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
