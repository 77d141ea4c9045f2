"""The order of the folders is the order of imports: a module imports only from its own folder and those above it."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "headstart"

#: Top to bottom: first single modules, then folders. A new one gets its place here.
ORDER = (
    *("__init__", "errors", "units", "plain", "durable", "batches", "entries", "extents", "blocks", "reading"),
    *("agentd", "wire", "hypervisor", "tracking", "guest", "volumes", "load", "store", "repository", "transfer"),
    *("appliance", "state", "backup", "restore", "simulation", "host", "server", "cli", "__main__"),
)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where they point"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            # `from headstart.store import local` names a module, `from headstart.units import KIB` something in one.
            target = next((found for found in (name, name.rpartition(".")[0]) if found in MODULES), None)
            if target is not None:
                yield target


def layer(module: str) -> int:
    return ORDER.index(module.split(".")[1])


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up(module: str) -> None:
    wrong = [target for target in imports(module) if layer(target) > layer(module)]
    assert not wrong, f"{module} imports {wrong} from below"


def test_there_are_no_import_cycles() -> None:
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()
