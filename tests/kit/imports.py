"""What the package's modules import of each other, and the order in which its folders may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "headstart"

#: Top to bottom: first single modules, then folders. A new one gets its place here.
ORDER = (
    *("__init__", "errors", "units", "plain", "durable", "batches", "logentries", "extents", "blocks", "reading"),
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
