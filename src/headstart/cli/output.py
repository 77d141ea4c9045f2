"""What the user gets to see: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from headstart import errors, logentries, plain
from headstart.cli import progress, streams

#: ANSI: to the upper left, and clear the screen.
_CLEAR = "\x1b[H\x1b[J"
#: Characters of a note, which may list many names.
_LONGEST_NOTE = 4000


class Output:
    """``as_json``: one object on stdout, and lines of JSON on stderr; else plain text."""

    def __init__(self, as_json: bool, verbose: bool) -> None:
        self._as_json = as_json
        self._verbose = verbose
        # Names of others may have letters that the user's terminal has not.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        handler = logging.StreamHandler(sys.stderr)
        form = "%(asctime)s %(name)s: %(message)s" if verbose else "headstart: %(message)s"
        handler.setFormatter(_JsonLines() if as_json else logentries.Entries(form))
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])

    @property
    def as_json(self) -> bool:
        return self._as_json

    def result(self, values: Mapping[str, Any], text: str, *, anew: bool = False) -> bool:
        """The one result of a verb. Who closed the pipe does not want it, and that is no error; whether it could be
        written.

        ``anew``: in place of all that a terminal shows."""
        if self._as_json:
            return self._print(json.dumps(values, default=str))
        return self._print((_CLEAR if anew and sys.stdout.isatty() else "") + plain.lines(text))

    def _print(self, text: str) -> bool:
        try:
            sys.stdout.write(text + "\n" if text else "")
            sys.stdout.flush()
        except OSError as error:
            streams.silence(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                raise errors.HeadstartError(
                    "The work is done, and need not be repeated, but its result could not be written: "
                    f"{error.strerror}."
                ) from error
            return False
        return True

    def note(self, text: str) -> None:
        """What the user should know beside the result."""
        said = plain.joined(text, _LONGEST_NOTE)
        streams.tell(json.dumps({"note": said}) if self._as_json else f"headstart: note: {said}")

    def error(self, error: errors.HeadstartError) -> int:
        """Tell it, and return the exit status."""
        status = errors.exit_code(error)
        message = " ".join((str(error), *getattr(error, "__notes__", ())))
        if self._as_json:
            told = {"kind": errors.kind(error), "exit_code": status, "message": message, "facts": error.facts}
            streams.tell(json.dumps({"error": told}, default=str))
        else:
            streams.tell(f"headstart: {plain.lines(message)}")
        return status

    def unexpected(self, error: Exception) -> int:
        """A bug of ours, or something that nobody thought of."""
        if self._verbose and not self._as_json:
            streams.tell(plain.lines("".join(traceback.format_exception(error)).rstrip()))
        facts = {"traceback": "".join(traceback.format_exception(error))} if self._verbose else {}
        said = f"Headstart failed in a way that it should not: {type(error).__name__}: {error}."
        hint = "" if self._verbose else " Run it again with -v to see where, and report it."
        return self.error(errors.HeadstartError(said + hint, **facts))

    def progress(self) -> contextlib.AbstractContextManager[progress.Report]:
        if self._as_json:
            return progress.lines()
        return progress.bars() if sys.stderr.isatty() else progress.nothing()

    def close(self) -> None:
        """Nothing may be left for the interpreter to write, and to complain of."""
        self._print("")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"log": {"name": record.name, "message": record.getMessage()}})
