"""docs/dependencies.md names every dependency, with the licence that it has; nothing is locked without a reason."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = {each["name"]: each for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
#: As packages call a licence, where that is not its SPDX expression; for some what their file of the licence says.
SPDX = {
    "MIT License": "MIT",
    "Apache License 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "GNU Lesser General Public License v2 or later (LGPLv2+), "
    "GNU General Public License v2 (GPLv2)": "LGPL-2.0-or-later",
}
#: Markers say that they are for other machines.
ELSEWHERE = {"tzdata"}


def normal(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def section(title: str) -> str:
    found = re.search(rf"^## {title}[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def named(title: str) -> dict[str, str]:
    """The licence of each package that a section's table names."""
    found: dict[str, str] = {}
    for packages, licences in re.findall(r"^\| ([a-z0-9, -]+) \| ([^|]+) \|", section(title), re.MULTILINE):
        names, each = packages.split(", "), licences.split(", ")
        found |= dict(zip(names, each * len(names) if len(each) == 1 else each, strict=True))
    found.pop("package", None)
    return found


def brought(title: str) -> dict[str, str]:
    after = re.split("They bring:|It brings:", section(title))[1:]
    return dict(re.findall(r"([a-z0-9-]+)\s+\(([^)]+)\)", "".join(after)))


DECLARED: dict[str, list[str]] = {
    "A host's": PROJECT["project"]["dependencies"],
    "A server's": PROJECT["project"]["optional-dependencies"]["server"],
    "With PostgreSQL": PROJECT["project"]["optional-dependencies"]["postgresql"],
    "Files on XFS": PROJECT["project"]["optional-dependencies"]["xfs"],
}


def needed(requirements: Iterable[str]) -> set[str]:
    """With what they need themselves, by the lock."""
    seen: set[tuple[str, str]] = set()
    left = [(normal(each), extra) for each in requirements for extra in ("", *re.findall(r"\[(.+?)\]", each))]
    while left:
        if (each := left.pop()) not in seen:
            seen.add(each)
            left += _next(*each)
    return {name for name, _ in seen} - ELSEWHERE


def _next(name: str, extra: str) -> Iterator[tuple[str, str]]:
    package: dict[str, Any] = LOCKED[name]
    further = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
    for each in further:
        yield from ((each["name"], more) for more in ("", *each.get("extra", ())))


def licence(name: str) -> str:
    """As installed here."""
    told = metadata.metadata(name).json
    text = str(told.get("license", ""))
    short = text if len(text) < 60 and "\n" not in text else ""
    classified = [each.rpartition(" :: ")[2] for each in told.get("classifier", ()) if "License ::" in each]
    said = str(told.get("license_expression") or short or ", ".join(classified))
    return SPDX.get(said, said)


@pytest.mark.parametrize("title", DECLARED)
def test_every_dependency_has_a_reason(title: str) -> None:
    declared = {normal(each) for each in DECLARED[title]}
    if title == "With PostgreSQL":
        declared.add("psycopg-binary")
    assert set(named(title)) == declared


@pytest.mark.parametrize("title", DECLARED)
def test_what_they_bring_is_named(title: str) -> None:
    above = [each for other in list(DECLARED)[: list(DECLARED).index(title)] for each in DECLARED[other]]
    new = needed(DECLARED[title]) - set(named(title)) - (needed(above) if title != "Files on XFS" else set())
    assert set(brought(title)) == new


@pytest.mark.parametrize("title", DECLARED)
def test_licences_are_those_that_packages_tell(title: str) -> None:
    told = {**named(title), **brought(title)}
    assert told == {name: licence(name) for name in told}
    assert title == "Files on XFS" or not [each for each in told.values() if each.startswith(("AGPL", "GPL"))]


def test_what_only_developers_need_is_named() -> None:
    groups = PROJECT["dependency-groups"].values()
    developers = {normal(each) for group in groups for each in group}
    missing = {each for each in developers if each not in section("To work on it").replace("\n", " ")}
    assert missing == {"dissect-xfs"}
