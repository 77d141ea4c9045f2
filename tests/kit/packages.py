"""Distribution packages, downloaded and unpacked without being installed. Needs no rights."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

#: apt drops root for the user _apt, who may be unable to write here.
OPTIONS = ("-q", "-o", "APT::Sandbox::User=root")


def unpacked(package: str, cache: Path) -> Path:
    """The folder ``cache/PACKAGE`` with the package's files. Two processes may ask at the same time."""
    target = cache / package
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=cache) as temporary:
        tree = Path(temporary, "tree")
        _apt("apt-get", "download", package, folder=Path(temporary))
        archive = next(Path(temporary).glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive, tree], check=True)
        put_in_place(tree, target)
    return target


def put_in_place(tree: Path, target: Path) -> None:
    """Rename a finished folder to its name; if another process was first, its folder stays."""
    try:
        tree.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def current_dependency(package: str, pattern: str) -> str:
    """The first dependency of a meta package that matches: which kernel is the current one."""
    with tempfile.TemporaryDirectory() as temporary:
        listing = _apt("apt-cache", "depends", package, folder=Path(temporary))
    found = re.search(rf"Depends: ({pattern})", listing)
    if found is None:
        raise LookupError(f"{package} depends on nothing like {pattern}:\n{listing}")
    return found.group(1)


def _apt(program: str, *arguments: str, folder: Path) -> str:
    """Run in a folder; if the machine's package lists are missing or too old, again with fresh ones of our own."""
    first = _run(program, *OPTIONS, *arguments, folder=folder)
    if first.returncode == 0:
        return first.stdout
    for needed in ("lists/partial", "cache/archives/partial"):
        (folder / needed).mkdir(parents=True, exist_ok=True)
    own = ("-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache")
    _run("apt-get", *OPTIONS, *own, "update", folder=folder)
    second = _run(program, *OPTIONS, *own, *arguments, folder=folder)
    if second.returncode != 0:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {first.stderr}{second.stderr}")
    return second.stdout


def _run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
