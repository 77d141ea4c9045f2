"""The tree in the docstring is the tree of the classes, and says their exit codes."""

from __future__ import annotations

import re

import pytest

from headstart import errors
from headstart.errors import HeadstartError

TREE = {
    name: int(code)
    for name, code in re.findall(r"^    (?:\|- )?([A-Z]\w+) +(\d+)   ", errors.__doc__ or "", re.MULTILINE)
}
#: Layers have classes of their own below these, which other tests may have imported.
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeadstartError)]


def test_the_tree_names_every_class() -> None:
    assert set(TREE) == {kind.__name__ for kind in CLASSES}


@pytest.mark.parametrize("name", TREE)
def test_every_class_has_the_exit_code_of_the_tree(name: str) -> None:
    kind = getattr(errors, name)
    assert errors.EXIT_CODES[kind] == TREE[name] == errors.exit_code(kind("said"))


def test_exit_codes_tell_classes_apart_and_are_none_of_the_shells() -> None:
    codes = list(errors.EXIT_CODES.values())
    assert len(set(codes)) == len(codes)
    # 126 to 165: not executable, not found, ended by a signal. Interrupted is meant to look like SIGINT.
    assert all(0 < code < 126 for kind, code in errors.EXIT_CODES.items() if kind is not errors.Interrupted)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_a_status_for_http(kind: type[HeadstartError]) -> None:
    assert errors.http_status(kind("said")) == errors.HTTP_STATUS.get(kind, 500)


def test_of_a_derived_class_the_nearest_decides() -> None:
    class Special(errors.Busy):
        """Of a layer that knows more."""

    assert errors.exit_code(Special("said")) == errors.exit_code(errors.Busy("said"))
    assert errors.http_status(Special("said")) == errors.http_status(errors.Busy("said"))


def test_an_error_is_its_sentence_and_has_facts() -> None:
    error = errors.NotFound("There is no VM 'web'.", vm="web")
    assert str(error) == "There is no VM 'web'."
    assert error.facts == {"vm": "web"}
