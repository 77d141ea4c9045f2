"""Lays out what the Debian packages hold: ``stage_debian.py WHEEL UV TARGET``, for ``scripts/package``.

A package has to work with the Python of each release, and still after an upgrade to the next one. So there is an
environment in /usr/lib/headstart with the locked wheels for each of ``PYTHONS``; what all have alike is there once::

    /usr/lib/headstart/bin/python3 -> /usr/bin/python3      sees the distribution's packages, too: libnbd, libvirt
    /usr/lib/headstart/lib/python3/                         the same for every Python
    /usr/lib/headstart/lib/python3.11/site-packages/        for this one, and a .pth that names the above
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: glibc of Debian 12 is 2.36.
PLATFORM = "x86_64-manylinux_2_35"
HOME = Path("usr/lib/headstart")
#: What each package is for, and the extras of ours that it brings; each also needs what those above it have.
PACKAGES = {"headstart": (), "headstart-server": ("server", "postgresql"), "headstart-xfs": ("xfs",)}
#: On PyPI as sources alone. They hold no C.
SOURCES = ("oncalendar",)
#: Of an installation and not of a package: paths and times of the machine that builds.
_LEFT_OUT = {"RECORD", "REQUESTED", "INSTALLER", "direct_url.json", "uv_cache.json", "uv_build.json"}
LAUNCHER = """\
#!/usr/lib/headstart/bin/python3 -I
import sys

from headstart.cli.main import main

sys.exit(main())
"""
ENVIRONMENT = """\
home = /usr/bin
include-system-site-packages = true
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What one wheel has installed; ``files`` are relative to the folder of all wheels."""

    name: str
    version: str
    licence: str
    files: tuple[str, ...]


def main() -> None:
    wheel, uv, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    owners = _owners(uv)
    trees = {python: _install(uv, wheel, target / "wheels" / python, python) for python in PYTHONS}
    found = {python: {each.name: each for each in _distributions(tree)} for python, tree in trees.items()}
    held: dict[str, list[Distribution]] = {package: [] for package in PACKAGES}
    for name in sorted({name for each in found.values() for name in each}):
        package = owners[name]
        there = {python: found[python][name] for python in PYTHONS if name in found[python]}
        held[package].append(next(iter(there.values())))
        _place(target / "tree" / package / HOME, trees, there)
    for package in PACKAGES:
        _licences(target / "debian" / f"{package}.copyright", held[package])
    _launcher(target / "tree" / "headstart")


def _owners(uv: str) -> dict[str, str]:
    """Which package a distribution goes into: the first that needs it."""
    owners = {"headstart": "headstart"}
    extras: list[str] = []
    for package, more in PACKAGES.items():
        extras += [word for extra in more for word in ("--extra", extra)]
        for line in _export(uv, extras).splitlines():
            if found := re.match(r"([A-Za-z0-9._-]+)==", line):
                owners.setdefault(_normal(found[1]), package)
    return owners


def _export(uv: str, words: list[str]) -> str:
    command = [uv, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _install(uv: str, wheel: Path, tree: Path, python: str) -> Path:
    asked = tree.with_name("wanted.txt")
    asked.parent.mkdir(parents=True, exist_ok=True)
    asked.write_text(_export(uv, ["--all-extras"]))
    options = ["--quiet", "--no-deps", "--target", str(tree), "--python-version", python, "--python-platform", PLATFORM]
    sources = [word for name in SOURCES for word in ("--no-binary", name)]
    for wanted in (["--only-binary", ":all:", *sources, "--require-hashes", "-r", str(asked)], [str(wheel)]):
        subprocess.run([uv, "pip", "install", *options, *wanted], check=True)
    return tree


def _distributions(tree: Path) -> Iterator[Distribution]:
    for folder in sorted(tree.glob("*.dist-info")):
        told = HeaderParser().parsestr((folder / "METADATA").read_text())
        with (folder / "RECORD").open(newline="") as record:
            # What a wheel wants in bin/ is for people who call it; here nobody does.
            names = sorted(row[0] for row in csv.reader(record) if not row[0].startswith(("../", "bin/")))
        files = tuple(name for name in names if not _left_out(name, folder.name))
        yield Distribution(_normal(told["Name"]), told["Version"], _licence(told), files)


def _left_out(name: str, information: str) -> bool:
    path = Path(name)
    return path.suffix == ".pyc" or (path.parent.name == information and path.name in _LEFT_OUT)


def _licence(told: object) -> str:
    expression, text = told.get("License-Expression"), told.get("License") or ""  # type: ignore[attr-defined]
    named = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier", ()) if each.startswith("License ::")]  # type: ignore[attr-defined]
    return str(expression or (text if text and "\n" not in text and len(text) < 60 else "") or ", ".join(named))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _place(home: Path, trees: dict[str, Path], there: dict[str, Distribution]) -> None:
    """Once for all where it is there for all and the same to the byte, else for each."""
    first, *others = there
    same = len(there) == len(PYTHONS) and all(
        there[other].files == there[first].files
        and all((trees[other] / name).read_bytes() == (trees[first] / name).read_bytes() for name in there[first].files)
        for other in others
    )
    for python in (first,) if same else there:
        for name in there[python].files:
            folder = "python3" if same else f"python{python}/site-packages"
            copy = home / "lib" / folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(trees[python] / name, copy)


def _licences(file: Path, held: list[Distribution]) -> None:
    ours = Path("deploy/debian/copyright").read_text()
    lines = [f" {each.name} {each.version}: {each.licence}" for each in held if each.name != "headstart"]
    brought = "\nIt brings, as published on PyPI, with the texts of their licences in their folders *.dist-info:\n\n"
    file.write_text(ours + brought + "\n".join(lines) + "\n")


def _launcher(root: Path) -> None:
    home = root / HOME
    (home / "bin").mkdir(parents=True, exist_ok=True)
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    (home / "bin/headstart").write_text(LAUNCHER)
    (home / "bin/headstart").chmod(0o755)
    (home / "pyvenv.cfg").write_text(ENVIRONMENT)
    for python in PYTHONS:
        (home / f"lib/python{python}/site-packages/headstart.pth").write_text("/usr/lib/headstart/lib/python3\n")
    program = root / "usr/bin/headstart"
    program.parent.mkdir(parents=True)
    program.symlink_to("../lib/headstart/bin/headstart")


if __name__ == "__main__":
    os.umask(0o022)
    main()
