"""What an image file says of itself: asked of ``qemu-img``, which takes no lock that would keep a VM from starting."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart import errors

SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A persistent bitmap. ``recording``: it records whenever somebody writes to the image. ``inconsistent``: the image
    is, or was at its end, open for writing, so that nothing can be said of the bitmap."""

    name: str
    granularity: int
    recording: bool
    inconsistent: bool


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """``size`` is the guest's. ``backing`` is empty without a backing file; ``apart``: the data lie in another file."""

    size: int
    backing: str = ""
    backing_format: str = ""
    bitmaps: tuple[Stored, ...] = ()
    old: bool = False
    apart: bool = False


def look(path: str, driver: str) -> ImageInfo:
    """The format is named, never guessed: a guest may write what looks like one. Raises ``Unreachable``."""
    command = ["qemu-img", "info", "--force-share", "--output=json", "-f", driver, path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise errors.Unsupported(f"qemu-img cannot be started ({error.strerror}): install qemu-utils.") from error
    except subprocess.TimeoutExpired as error:
        raise errors.Unreachable(f"The image {path} does not answer for {SECONDS:.0f} s.") from error
    if done.returncode:
        raise errors.Unreachable(f"The image {path} cannot be read: {done.stderr.strip()}")
    return _parse(json.loads(done.stdout))


def _parse(told: Mapping[str, Any]) -> ImageInfo:
    data = told.get("format-specific", {}).get("data", {})
    return ImageInfo(
        told["virtual-size"],
        told.get("full-backing-filename", told.get("backing-filename", "")),
        told.get("backing-filename-format", ""),
        tuple(_stored(each) for each in data.get("bitmaps", ())),
        old=data.get("compat") == "0.10",
        apart="data-file" in data,
    )


def _stored(told: Mapping[str, Any]) -> Stored:
    flags = told["flags"]
    return Stored(told["name"], told["granularity"], "auto" in flags, "in-use" in flags)
