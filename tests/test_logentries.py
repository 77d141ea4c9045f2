"""Log entries: whatever is in them, none looks like another one."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from headstart import logentries
from headstart.cli.output import Output
from tests.kit.evil import EVIL


def formatted(message: str, *arguments: object, error: BaseException | None = None) -> list[str]:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("headstart.host", logging.WARNING, __file__, 1, message, arguments, info)
    return logentries.Entries("%(levelname)s %(message)s").format(record).split("\n")


def test_one_line_whatever_it_says() -> None:
    [line] = formatted("The guest said: %s", f"no\nERROR all is lost {EVIL}")
    assert line.startswith("WARNING The guest said: no ERROR all is lost ?[2J")
    assert line.isprintable()


def test_what_an_exception_says_is_indented() -> None:
    try:
        raise ValueError(f"no\nERROR all is lost {EVIL}")
    except ValueError as error:
        first, *rest = formatted("A bug.", error=error)
    assert first == "WARNING A bug."
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_an_entry_is_shorter_than_what_the_journal_cuts() -> None:
    [line] = formatted("%s", "日" * 100_000)
    assert len(line.encode()) < 48 * 1024


@pytest.mark.parametrize("flags", [(), ("-v",), ("--json",), ("--json", "-v")])
def test_a_warning_goes_through_it(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without -v, where Python's last resort would write it as it is."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    monkeypatch.setattr(sys, "stderr", told := io.StringIO())
    Output("--json" in flags, "-v" in flags)
    logging.getLogger("headstart.guest").warning("It said %s", EVIL)
    [line] = told.getvalue().splitlines()
    assert line.isprintable()
    assert "--json" not in flags or json.loads(line)["log"]["message"] == f"It said {EVIL}"
