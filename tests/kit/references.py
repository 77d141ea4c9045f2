"""Tests that documents and tables name, as ``tests/FILE.py::NAME``."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[2]


def exists(reference: str) -> bool:
    """Whether the file has a test function of that name."""
    file, _, name = reference.partition("::")
    return name.startswith("test_") and name in _functions(ROOT / file)


@functools.lru_cache
def _functions(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
