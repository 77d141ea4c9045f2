"""The order of the folders is the order of imports: a module imports only from its own folder and those above it."""

from __future__ import annotations

import graphlib

import pytest

from handbook import imports as picture
from tests.kit.imports import MODULES, imports, layer


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_up(module: str) -> None:
    wrong = [target for target in imports(module) if layer(target) > layer(module)]
    assert not wrong, f"{module} imports {wrong} from below"


def test_there_are_no_import_cycles() -> None:
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_picture_is_that_of_the_sources() -> None:
    assert picture.FILE.read_text() == picture.drawing(), "python -m handbook.imports"
