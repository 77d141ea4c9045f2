"""Lines that people read and programs take apart."""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from headstart.host import log


def test_a_decision() -> None:
    told = log.line(
        vm="web", round=3, dirty=log.size(1288490189), load=0.314, rate=log.rate(41943040), reason="cpu 0.3", left=None
    )
    assert told == 'vm=web round=3 dirty=1.2GiB load=0.31 rate=40.0MiB/s reason="cpu 0.3"'


@given(st.text(max_size=30))
def test_whatever_a_guest_says_stays_one_value_of_one_line(text: str) -> None:
    told = log.line(vm="web", reason=text, end=1)
    assert told.isprintable()
    shown = "".join(each if each.isprintable() else "?" for each in text)
    if not set(shown) & set("'$`!#"):
        assert shlex.split(told) == ["vm=web", f"reason={shown}", "end=1"]
