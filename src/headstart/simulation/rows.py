"""Files of figures: CSV, one row a line, a header allowed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from headstart import errors

#: Three years: a later moment is counted from elsewhere.
LATEST = 1e8


def rows(path: Path, columns: int, meaning: str) -> Iterator[tuple[int, list[str]]]:
    """``(line, cells)`` of each row. Raises ``errors.Usage`` with file, line and reason."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield from _rows(path, csv.reader(file), columns, meaning)
    except OSError as error:
        raise errors.Usage(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise errors.Usage(f"{path} is no text: {error.reason}. It should be CSV: {meaning}.") from error


def wrong(path: Path, line: int, reason: str) -> errors.Usage:
    return errors.Usage(f"{path}, line {line}: {reason}.", file=str(path), line=line, reason=reason)


def seconds(path: Path, line: int, text: str, before: float) -> float:
    """A moment, not before the one ``before`` it, nor after ``LATEST``."""
    moment = number(path, line, text)
    if moment > LATEST:
        raise wrong(path, line, f"{text.strip()} s is years: let seconds count from where the trace begins, not 1970")
    if moment < before:
        raise wrong(path, line, f"{text.strip()} s comes after {before:g} s: sort the file by its first column")
    return moment


def number(path: Path, line: int, text: str) -> float:
    """Finite, and not negative."""
    try:
        value = float(text)
    except ValueError:
        raise wrong(path, line, f"{text.strip()!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise wrong(path, line, f"{text.strip()} is negative or not finite")
    return value


def whole(path: Path, line: int, text: str) -> int:
    """Bytes."""
    try:
        value = int(text)
    except ValueError:
        raise wrong(path, line, f"{text.strip()!r} is not a whole number") from None
    if value < 0:
        raise wrong(path, line, f"{text.strip()} is negative")
    return value


def _rows(path: Path, reader: Iterator[list[str]], columns: int, meaning: str) -> Iterator[tuple[int, list[str]]]:
    found = False
    line = 0
    try:
        for line, row in enumerate(reader, 1):
            if len(row) != columns:
                if not row:
                    continue
                raise wrong(path, line, f"{len(row)} columns, where there should be {columns}: {meaning}")
            if line == 1 and _is_header(row):
                continue
            found = True
            yield line, row
    except csv.Error as error:
        raise wrong(path, line + 1, str(error)) from error
    if not found:
        raise errors.Usage(f"{path} holds no rows. It should be CSV: {meaning}.", file=str(path))


def _is_header(row: list[str]) -> bool:
    """Names and not one figure."""
    return all(cell.strip() and not _is_number(cell) for cell in row)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
