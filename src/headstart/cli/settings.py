"""What the global options and the environment say."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.store import membership


@dataclass(frozen=True, slots=True)
class Settings:
    """``state`` and ``scratch`` are absolute: QEMU, which runs in another directory, is told of files in them."""

    url: str | None
    state: Path
    scratch: Path
    cache: Path

    @property
    def joined(self) -> Path:
        """What is kept of a server that this host has joined, if it has."""
        return self.state / membership.FILE

    @property
    def place(self) -> str | None:
        """The address of the repository: as it was named, else that of the server that this host has joined. Raises
        ``Usage``, ``Damaged``."""
        if self.url is not None:
            return self.url
        try:
            found = membership.load(self.joined)
        except errors.Usage:
            return None
        return None if found is None else found.address

    @property
    def repository(self) -> str:
        found = self.place
        if found is None:
            raise errors.Usage("Name the repository with --repository or HEADSTART_REPOSITORY.")
        return found


def place_of(url: str) -> str:
    """``{host}`` stands for the name of this host: each has a repository of its own in one place."""
    return url.replace("{host}", socket.gethostname())


def settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Options come before the environment; an empty variable is none."""

    def chosen(option: str) -> str | None:
        given: str | None = getattr(arguments, option, None)
        return given if given is not None else environment.get(f"HEADSTART_{option.upper()}") or None

    def directory(option: str, otherwise: Path) -> Path:
        named = chosen(option)
        return Path(named).absolute() if named else otherwise

    state = directory("state", _default(environment, "/var/lib", "XDG_STATE_HOME", ".local/state"))
    cache = directory("cache", _default(environment, "/var/cache", "XDG_CACHE_HOME", ".cache"))
    url = chosen("repository")
    return Settings(None if url is None else place_of(url), state, directory("scratch", state / "scratch"), cache)


def _default(environment: Mapping[str, str], system: str, variable: str, own: str) -> Path:
    """The system's for root, else the user's (XDG Base Directory Specification)."""
    if os.geteuid() == 0:
        return Path(system) / "headstart"
    given = Path(environment.get(variable, ""))
    return (given if given.is_absolute() else Path.home() / own) / "headstart"
