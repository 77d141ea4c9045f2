"""What ``era_invalidate`` prints, in pieces of any length."""

from __future__ import annotations

import pytest

from headstart.agentd import changes

#: As version 0.9 of thin-provisioning-tools prints it.
TEXT = b"""<blocks>
  <block block="3"/>
  <range begin="10" end = "13"/>
  <range begin="4294967295" end="4294967297"/>
</blocks>
"""
RANGES = [(3, 4), (10, 13), (4294967295, 4294967297)]


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_all_ranges_are_told(length: int) -> None:
    assert list(changes.parse(TEXT[at : at + length] for at in range(0, len(TEXT), length))) == RANGES


def test_nothing_changed() -> None:
    assert list(changes.parse(iter([b"<blocks>\n</blocks>\n"]))) == []


@pytest.mark.parametrize(
    "text", [b"", TEXT[:-10], TEXT.replace(b'begin="10"', b'begin="ten"'), TEXT.replace(b"3", b"x")]
)
def test_what_is_cut_off_or_not_understood_is_no_answer(text: bytes) -> None:
    with pytest.raises(OSError, match="not understood"):
        list(changes.parse(iter([text])))
