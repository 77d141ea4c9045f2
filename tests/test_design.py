"""docs/design.md names modules that exist, and has a row for each layer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handbook.imports import layers
from tests.kit.imports import PACKAGE

TEXT = (Path(__file__).parents[1] / "docs" / "design.md").read_text()
#: `folder/module`, `folder/` and `folder.module`, of a folder of ours.
NAMED = {
    found
    for found in re.findall(r"`([a-z_]+(?:[/.][a-z_]+)*/?)`", TEXT)
    if re.split(r"[/.]", found)[0] in layers() and re.search(r"[/.]", found)
}


def test_there_is_something_to_look_at() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize("name", sorted(NAMED))
def test_what_the_design_names_exists(name: str) -> None:
    place = PACKAGE / name.replace(".", "/")
    assert place.is_dir() or place.with_suffix(".py").is_file()


@pytest.mark.parametrize("layer", layers()[1:])
def test_each_layer_has_its_row(layer: str) -> None:
    assert f"\n| `{layer}/` |" in TEXT
