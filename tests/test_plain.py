"""Words of others are shown as printable text, which no terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import plain
from tests.kit.evil import EVIL

TEXT = st.text(st.characters(), max_size=50) | st.just(EVIL)


@given(TEXT, st.integers(1, 60))
def test_a_line_is_printable_and_no_longer(text: str, longest: int) -> None:
    found = plain.line(text, longest)
    assert found.isprintable()
    assert len(found) <= longest
    found.encode()
    if text.isprintable() and len(text) <= longest:
        assert found == text


@given(TEXT)
def test_lines_stay_lines(text: str) -> None:
    found = plain.lines(text).split("\n")
    assert len(found) == text.count("\n") + 1
    assert all(each.isprintable() for each in found)


def test_several_lines_as_one() -> None:
    assert plain.joined("one\n  two\x1b\tthree ") == "one two? three"


@pytest.mark.parametrize("letter", ["ä", "日", "😀", "\u05d0", "\u0301", " "])
def test_letters_stay(letter: str) -> None:
    assert plain.line(letter) == letter
