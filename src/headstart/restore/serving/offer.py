"""What the plugin in nbdkit is told, and what it tells.

::

    we      ---- stdin: an offer, one line of JSON; then nothing, until we end --->   nbdkit with the plugin
            <--- stderr: lines of ours begin with MARK; all others are nbdkit's ---

A pipe, as the offer holds the secrets of the repository: arguments and environments can be seen by others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from headstart import errors, repository, store
from headstart.repository import Repository, manifest
from headstart.repository.keys import Secrets
from headstart.repository.manifest import Disk, Manifest

MARK = "headstart:"
READY = "ready"
FAILED = "failed"
WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Offer:
    """Disks of a snapshot, by name; ``cache`` is the directory with what is known of the index; ``patience``: seconds
    for which a store that is not at hand is asked again; ``leavings``: files to remove when we end before nbdkit."""

    url: str
    secrets: Secrets = field(repr=False)
    cache: Path | None
    manifest: Manifest
    disks: tuple[str, ...]
    patience: float
    leavings: tuple[Path, ...]

    def encode(self) -> bytes:
        told = {
            "url": self.url,
            "secrets": self.secrets.joined.hex(),
            "cache": None if self.cache is None else str(self.cache),
            "manifest": manifest.encode(self.manifest).decode(),
            "disks": self.disks,
            "patience": self.patience,
            "leavings": list(map(str, self.leavings)),
        }
        return json.dumps(told).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        told = json.loads(line)
        return cls(
            told["url"],
            Secrets.of(bytes.fromhex(told["secrets"])),
            None if told["cache"] is None else Path(told["cache"]),
            manifest.decode(told["manifest"].encode()),
            tuple(told["disks"]),
            told["patience"],
            tuple(map(Path, told["leavings"])),
        )

    def open(self) -> tuple[Repository, list[Disk]]:
        """The repository, once more, without a password; and the disks."""
        repo = repository.open_with(store.open_store(self.url, self.patience), self.secrets)
        if self.cache is not None:
            repo.holdings.use_cache(self.cache)
        by_name = {disk.name: disk for disk in self.manifest.disks}
        return repo, [by_name[name] for name in self.disks]


def say(what: str, text: str = "") -> bytes:
    """A line of the plugin's."""
    return f"{MARK} {what} {json.dumps(text)}\n".encode()


def heard(line: str) -> tuple[str, str] | None:
    """What a line says, and its text; None of nbdkit's own, which may hold what clients say."""
    if not line.startswith(MARK):
        return None
    what, _, text = line.removeprefix(MARK).strip().partition(" ")
    try:
        return what, str(json.loads(text))
    except (ValueError, RecursionError):
        return None


def failure(error: errors.HeadstartError) -> str:
    """As text, for ``failed``."""
    return json.dumps({"kind": errors.kind(error), "message": str(error), "facts": error.facts}, default=str)


def failed(text: str) -> errors.HeadstartError:
    """The error of which ``failure`` told."""
    told = json.loads(text)
    kinds = {kind.__name__: kind for kind in errors.EXIT_CODES}
    return kinds[told["kind"]](told["message"], **told["facts"])
