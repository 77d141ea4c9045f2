"""The files of a configuration: found, trusted, read and parsed, each by itself."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.host import locate
from headstart.host.mistakes import Mistake, key_of

FOLDER = "conf.d"
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_HOW = "chown it to root and chmod go-w"


@dataclass(frozen=True)
class Source:
    """A file that is TOML."""

    file: Path
    text: str
    tables: dict[str, Any]

    @cached_property
    def lines(self) -> dict[locate.Path, int]:
        return locate.lines(self.text)

    def line(self, path: locate.Path) -> int:
        return locate.line_of(self.lines, path)

    def place(self, path: locate.Path) -> str:
        return f"{self.file}:{self.line(path)}"

    def mistake(self, path: locate.Path, message: str) -> Mistake:
        return Mistake(self.file, self.line(path), key_of(path), message)


@dataclass(slots=True)
class Found:
    files: list[Path] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read(file: Path) -> Found:
    """The file and ``conf.d/*.toml`` beside it, in the order of their names. Hidden ones are an editor's."""
    found = Found()
    try:
        folder = file.parent / FOLDER
        more = (
            sorted(each for each in folder.glob("*.toml") if not each.name.startswith(".")) if folder.is_dir() else []
        )
        for place in (file.parent, folder):
            if place.is_dir():
                _judge(found, place, place.stat())
    except OSError as error:
        found.mistakes.append(Mistake(file.parent, 0, "", f"cannot be read: {error.strerror}"))
        more = []
    for each in (file, *more):
        _add(found, each)
    return found


def _add(found: Found, file: Path) -> None:
    found.files.append(file)
    try:
        with file.open("rb") as opened:
            # Of what is read, whatever stands there a moment later.
            _judge(found, file, os.fstat(opened.fileno()))
            text = opened.read().decode()
        parse(found, file, text)
    except FileNotFoundError:
        found.mistakes.append(
            Mistake(file, 0, "", "there is no such file. Write it (docs/policies.md), or name another with --config")
        )
    except OSError as error:
        found.mistakes.append(Mistake(file, 0, "", f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found.mistakes.append(Mistake(file, line, "", "is not text in UTF-8"))


def parse(found: Found, file: Path, text: str) -> None:
    """``text`` is what stands in ``file``."""
    try:
        found.sources.append(Source(file, text, tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        found.mistakes.append(_syntax(file, text, str(error)))
    except (RecursionError, ValueError) as error:
        # Lists a thousand deep, numbers of thousands of digits: no TOMLDecodeError comes of those.
        deep = isinstance(error, RecursionError)
        found.mistakes.append(Mistake(file, 0, "", f"cannot be read: {'it is nested too deeply' if deep else error}"))


def _syntax(file: Path, text: str, message: str) -> Mistake:
    where = _WHERE.search(message)
    said = _WHERE.sub("", message)
    said = said[:1].lower() + said[1:]
    if where is None or where[1] is None:
        return Mistake(file, text.rstrip("\n").count("\n") + 1, "", f"is not TOML: {said}, at the end of the file")
    return Mistake(file, int(where[1]), "", f"is not TOML: {said}, at column {where[2]}")


def _judge(found: Found, place: Path, seen: os.stat_result) -> None:
    """The configuration has commands that run as its reader: what others may write is refused by root, and noted
    otherwise."""
    me = os.geteuid()
    # In a folder with the sticky bit nobody replaces what belongs to another.
    sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX and place.name != FOLDER
    if seen.st_uid not in (0, me):
        reason = f"belongs to another user (uid {seen.st_uid})"
    elif seen.st_mode & _OTHERS_WRITE and not sticky:
        reason = f"can be written by others (mode {stat.S_IMODE(seen.st_mode):04o})"
    else:
        return
    if me == 0:
        found.mistakes.append(Mistake(place, 0, "", f"{reason}, and has commands that run as root: {_HOW}"))
    else:
        found.warnings.append(f"{place} {reason}: they decide which commands run as you.")
