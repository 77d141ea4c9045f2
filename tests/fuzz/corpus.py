"""The inputs that are kept for each target: few and short ones, that together reach all that any of them does."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

FOLDER = Path(__file__).parent / "corpus"
PACKAGE = str(Path(__file__).parents[2] / "src" / "headstart")
#: What broke something once, and is kept whatever it reaches.
FOUND = "found-"

Target = Callable[[bytes], None]
#: A step from one line of a file to another.
Step = tuple[str, int, int]


def kept(name: str) -> list[Path]:
    folder = FOLDER / name
    return sorted(folder.iterdir()) if folder.is_dir() else []


def steps(target: Target, data: bytes) -> frozenset[Step]:
    """Within the product. Raises what the target raises."""
    found: set[Step] = set()

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE):
            return None
        last = 0

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            found.add((file, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        target(data)
    finally:
        sys.settrace(before)
    return frozenset(found)


def distilled(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """The shortest first; each has to reach something that those before it do not."""
    known: set[Step] = set()
    chosen = []
    for data in sorted(set(inputs), key=lambda each: (len(each), each)):
        reached = steps(target, data)
        if not reached <= known:
            known |= reached
            chosen.append(data)
    return chosen


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """In place of what was kept, save what was found."""
    for path in kept(name):
        if not path.name.startswith(FOUND):
            path.unlink()
    found = {path.read_bytes() for path in kept(name)}
    add(FOLDER / name, [data for data in inputs if data not in found])


def add(folder: Path, inputs: Iterable[bytes]) -> None:
    """Files named by what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
