"""What the global options and the environment say."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import errors


@dataclass(frozen=True, slots=True)
class Settings:
    """``state`` and ``scratch`` are absolute: QEMU, which runs in another directory, is told of files in them."""

    url: str | None
    state: Path
    scratch: Path

    @property
    def repository(self) -> str:
        if self.url is None:
            raise errors.Usage("Name the repository with --repository or HEADSTART_REPOSITORY.")
        return self.url


def place_of(url: str) -> str:
    """``{host}`` stands for the name of this host: each has a repository of its own in one place."""
    return url.replace("{host}", socket.gethostname())


def settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Options come before the environment; an empty variable is none."""

    def chosen(option: str) -> str | None:
        given: str | None = getattr(arguments, option, None)
        return given if given is not None else environment.get(f"HEADSTART_{option.upper()}") or None

    named, scratch = chosen("state"), chosen("scratch")
    state = Path(named).absolute() if named else _default_state(environment)
    url = chosen("repository")
    return Settings(
        None if url is None else place_of(url), state, Path(scratch).absolute() if scratch else state / "scratch"
    )


def _default_state(environment: Mapping[str, str]) -> Path:
    """The system's for root, else the user's (XDG Base Directory Specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/headstart")
    given = Path(environment.get("XDG_STATE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".local" / "state") / "headstart"
