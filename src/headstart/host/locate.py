"""In which line of a TOML file a key stands. ``tomllib`` does not tell.

A statement is the smallest number of lines that is TOML by itself, as no beginning of a longer one is. So the file is
cut into statements, and each of them is read alone for the keys that it has.
"""

from __future__ import annotations

import tomllib
from typing import Any, TypeAlias

#: Keys, and indexes of arrays.
Path: TypeAlias = tuple[str | int, ...]


def lines(text: str) -> dict[Path, int]:
    """The first line of every key and of every table. ``text`` is TOML without mistakes."""
    found: dict[Path, int] = {(): 1}
    tables: dict[Path, int] = {}
    prefix: Path = ()
    rows = text.replace("\r\n", "\n").split("\n")
    start = 0
    while start < len(rows):
        end, statement = _statement(rows, start)
        if rows[start].lstrip().startswith("["):
            prefix = _header(statement, tables)
            _note(found, prefix, start + 1)
        else:
            for path in _paths(statement):
                _note(found, _within(prefix, path), start + 1)
        start = end
    return found


def line_of(found: dict[Path, int], path: Path) -> int:
    """The line of a key; of one that is not there that of the table where it is missing."""
    while path not in found:
        path = path[:-1]
    return found[path]


def _statement(rows: list[str], start: int) -> tuple[int, dict[str, Any]]:
    """The row behind the statement, and what it says."""
    for end in range(start + 1, len(rows) + 1):
        try:
            return end, tomllib.loads("\n".join(rows[start:end]))
        except tomllib.TOMLDecodeError:
            continue
    raise AssertionError("the whole text is TOML")


def _header(statement: dict[str, Any], tables: dict[Path, int]) -> Path:
    """``[a.b]`` or ``[[a.b]]``, with the index of each array of tables on the way."""
    path: Path = ()
    inner: Any = statement
    while inner:
        if isinstance(inner, list):
            tables[path] = tables.get(path, -1) + 1
            inner = inner[0]
        else:
            [(key, inner)] = inner.items()
            path = (*path, key)
            if isinstance(inner, dict) and path in tables:
                path = (*path, tables[path])
    return (*path, tables[path]) if path in tables else path


def _paths(value: Any) -> list[Path]:
    """All keys of a value, and those inside of them."""
    if isinstance(value, dict):
        inner: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return []
    return [path for key, each in inner for path in ((key,), *((key, *rest) for rest in _paths(each)))]


def _within(prefix: Path, path: Path) -> Path:
    return (*prefix, *path)


def _note(found: dict[Path, int], path: Path, line: int) -> None:
    """Tables on the way may have no statement of their own."""
    for length in range(1, len(path) + 1):
        found.setdefault(path[:length], line)
