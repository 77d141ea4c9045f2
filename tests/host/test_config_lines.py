"""In which line a key stands."""

from __future__ import annotations

import tomllib
from typing import Any

from headstart.host import locate

TEXT = '''\
# A comment
[host]
rounds = 2  # [policy]

[policy.a]
audit = 5
schedule.calendar = [
  "daily",
  # ]
]
schedule.timezone = "UTC"
text = """
[policy.b]
audit = 7
"""
hooks = { after-thaw = "x", "before-freeze" = ["y", "z"] }

[policy.a.load]
low = 0.1

[[policy.a.limits]]
rate = 1
[[policy.a.limits]]
rate = 2
  [policy.a.limits.more]
  deep = 1

[vm."web.*"]
"policy" = "a"
[ vm . 'other' ]
policy = "a"
'''

EXPECTED = {
    ("host",): 2,
    ("host", "rounds"): 3,
    ("policy",): 5,
    ("policy", "a"): 5,
    ("policy", "a", "audit"): 6,
    ("policy", "a", "schedule"): 7,
    ("policy", "a", "schedule", "calendar"): 7,
    ("policy", "a", "schedule", "calendar", 0): 7,
    ("policy", "a", "schedule", "timezone"): 11,
    ("policy", "a", "text"): 12,
    ("policy", "a", "hooks", "before-freeze", 1): 16,
    ("policy", "a", "load"): 18,
    ("policy", "a", "load", "low"): 19,
    ("policy", "a", "limits"): 21,
    ("policy", "a", "limits", 0): 21,
    ("policy", "a", "limits", 0, "rate"): 22,
    ("policy", "a", "limits", 1): 23,
    ("policy", "a", "limits", 1, "rate"): 24,
    ("policy", "a", "limits", 1, "more"): 25,
    ("policy", "a", "limits", 1, "more", "deep"): 26,
    ("vm", "web.*"): 28,
    ("vm", "web.*", "policy"): 29,
    ("vm", "other"): 30,
    ("vm", "other", "policy"): 31,
}


def test_lines() -> None:
    found = locate.lines(TEXT)
    assert {path: found.get(path) for path in EXPECTED} == EXPECTED


def test_every_key_has_a_line() -> None:
    found = locate.lines(TEXT)

    def walk(value: Any, path: locate.Path) -> None:
        assert path in found
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in inner:
            walk(each, (*path, key))

    walk(tomllib.loads(TEXT), ())


def test_what_is_missing_is_where_it_should_be() -> None:
    found = locate.lines(TEXT)
    assert locate.line_of(found, ("policy", "a", "load", "high")) == 19 - 1
    assert locate.line_of(found, ("policy", "a", "limits", 1, "from")) == 23
    assert locate.line_of(found, ("nothing", "at", "all")) == 1


def test_line_ends_of_other_systems_and_empty_files() -> None:
    assert locate.lines("a = 1\r\n\r\nb = [\r\n1]\r\nc = 2\r\n") == {
        (): 1,
        ("a",): 1,
        ("b",): 3,
        ("b", 0): 3,
        ("c",): 5,
    }
    assert locate.lines("") == {(): 1}


def test_arrays_of_tables_inside_of_others() -> None:
    found = locate.lines("[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]\nx = 3\n")
    assert found[("a", 0, "b", 1, "x")] == 5
    assert found[("a", 1, "b", 0, "x")] == 8
