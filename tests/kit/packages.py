"""Distribution packages, downloaded and unpacked without being installed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path


def unpacked(package: str, cache: Path) -> Path:
    """The folder ``cache/PACKAGE`` with the package's files. Two processes may ask at the same time."""
    target = cache / package
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=cache) as temporary:
        tree = Path(temporary, "tree")
        subprocess.run(["dpkg", "-x", _download(package, Path(temporary)), tree], check=True)
        # mkdtemp makes private folders, dpkg keeps the package's own modes below.
        tree.chmod(0o755)
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
    listing = subprocess.run(["apt-cache", "depends", package], check=True, capture_output=True, text=True)
    found = re.search(rf"Depends: ({pattern})", listing.stdout)
    if found is None:
        raise LookupError(f"{package} is unknown to apt: run 'make setup' (it updates the package lists)")
    return found.group(1)


def _download(package: str, folder: Path) -> Path:
    # apt drops root for the user _apt, who cannot write here; an ordinary user has no sandbox to leave.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    first = _run([*command, "download", package], folder)
    if first.returncode != 0:
        # The machine's package lists are missing or stale; anybody may fetch private ones.
        lists = folder / "apt"
        (lists / "lists" / "partial").mkdir(parents=True)
        (lists / "cache" / "archives" / "partial").mkdir(parents=True)
        command += ["-o", f"Dir::State::Lists={lists}/lists", "-o", f"Dir::Cache={lists}/cache"]
        _run([*command, "update"], folder)
        second = _run([*command, "download", package], folder)
        if second.returncode != 0:
            raise RuntimeError(f"apt-get download {package}: {first.stderr}{second.stderr}")
    return next(folder.glob(f"{package}_*.deb"))


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
