"""Mistakes in the configuration: where, which key, what is wrong and what is allowed. All are told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.host import locate


@dataclass(frozen=True, slots=True)
class Mistake:
    """``key`` is empty where the file as a whole is meant, ``line`` 0."""

    file: Path
    line: int
    key: str
    message: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}" if self.key else f"{self.place}: {self.message}"


def key_of(path: locate.Path) -> str:
    """``policy.web.limits[0].rate``."""
    text = ""
    for each in path:
        text += f"[{each}]" if isinstance(each, int) else f".{quoted(each)}"
    return text.removeprefix(".")


def quoted(name: str) -> str:
    """A key as TOML wants it."""
    return name if name and all(each.isascii() and (each.isalnum() or each in "-_") for each in name) else f'"{name}"'


def error(mistakes: Sequence[Mistake]) -> errors.Usage:
    count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    told = [
        {"file": str(each.file), "line": each.line or None, "key": each.key, "message": each.message}
        for each in mistakes
    ]
    return errors.Usage("\n".join([f"The configuration has {count}:", *map(str, mistakes)]), mistakes=told)
