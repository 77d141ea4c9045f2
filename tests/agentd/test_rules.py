"""What makes agentd run wherever it is put: an old Python, its standard library, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import agentd
from headstart.agentd import release
from headstart.guest import package

FOLDER = Path(agentd.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_the_folder_is_flat() -> None:
    assert not [path for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_only_the_standard_library_is_imported(module: Path) -> None:
    foreign = [
        name
        for name in imports(module)
        if name.partition(".")[0] not in sys.stdlib_module_names and name.split(".")[:2] != ["headstart", "agentd"]
    ]
    assert not foreign, f"{module.name} imports {foreign}, which no guest has"
    assert "__future__" not in set(imports(module)), "annotations from the future are newer than Python 3.6"


@pytest.mark.parametrize("module", ["ssl", "subprocess", "zipfile", "asyncio", "pathlib", "dataclasses"])
def test_what_costs_memory_is_not_loaded(module: str) -> None:
    """By the agent as it is started without options."""
    code = f"import sys, headstart.agentd.main; sys.exit({module!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('{FOLDER.parents[1]}'); {code}"]
    )
    assert done.returncode == 0


def test_python_3_6_runs_it() -> None:
    vermin = Path(sys.executable).with_name("vermin")
    done = subprocess.run([vermin, "-t=3.6-", "--violations", "--no-tips", *MODULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_release_grows_with_every_change() -> None:
    found = package.recorded(package.sources())
    assert found == release.SOURCES, (
        "agentd is not what it was at its release, and no agent would be renewed. In agentd/release.py write:\n\n"
        f'RELEASE = {release.RELEASE + 1}\nSOURCES = "{found}"\n\n'
        "(RELEASE may stay what it is if that number has never been published.)"
    )
