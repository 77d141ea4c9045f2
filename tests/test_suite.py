"""The tests as documentation: each module says what it proves, no helper is there twice, slow modules say why."""

from __future__ import annotations

import ast
import functools
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import branches, times

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: What runs in guests stands alone.
MODULES = [
    path
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path.name != "__init__.py" and "inguest" not in path.parts
]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in parsed(path).body if isinstance(node, ast.FunctionDef))


def body_of(function: ast.FunctionDef) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function) else function.body


def size_of(body: list[ast.stmt]) -> int:
    return sum(isinstance(node, ast.stmt) for each in body for node in ast.walk(each))


def test_every_module_says_what_it_proves_or_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in MODULES if not ast.get_docstring(parsed(path))]
    assert not silent


def test_no_helper_stands_in_two_modules() -> None:
    """What two modules need is in tests/kit, or in what their folder shares."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for function in functions(path):
            body = body_of(function)
            if size_of(body) > 1 and not function.name.startswith("test_") and not function.decorator_list:
                places[ast.dump(ast.Module(body, []))].append(f"{path.relative_to(ROOT)}: {function.name}")
    assert [each for each in places.values() if len(each) > 1] == []


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from (start + each.name for each in node.names)


def test_nothing_is_imported_from_a_module_of_tests() -> None:
    """Its fixtures and marks would come along."""
    for path in MODULES:
        found = [name for name in imported(path) if name.startswith("tests.") and ".test_" in name]
        assert not found, path


def test_no_two_tests_of_a_module_have_one_name() -> None:
    """The first of them would never run."""
    for path in MODULES:
        names = [function.name for function in functions(path)]
        assert len(names) == len(set(names)), path


@pytest.mark.parametrize("place", times.WHY)
def test_what_is_said_of_slow_tests_is_said_of_some(place: str) -> None:
    assert (ROOT / place).exists()


@pytest.mark.parametrize("module", PROJECT["tool"]["coverage"]["run"]["include"])
def test_what_counts_as_the_core_is_there(module: str) -> None:
    assert any(ROOT.glob(module))


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_suite" name="a" time="1.5"/>
<testcase classname="tests.test_suite.TestClass" name="b" time="{seconds}"/>
<testcase classname="tests.e2e.test_exact" name="c[1]" time="70.25"/>
</testsuite></testsuites>"""


def test_times_are_summed_by_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.xml").write_text(REPORT.format(seconds=2))
    (tmp_path / "other.xml").write_text(REPORT.format(seconds=3))
    assert times.main([str(tmp_path / "one.xml"), str(tmp_path / "other.xml")]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0].startswith("| `tests/e2e/test_exact.py` | 140 | 2 | boots guests that write all the time")
    assert rows[1:] == ["| `tests/test_suite.py` | 8 | 4 |  |", "| all 2 | 148 | 6 | |"]


def test_a_slow_module_without_a_reason_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.xml").write_text(REPORT.format(seconds=times.SLOW_SECONDS))
    assert times.main([str(tmp_path / "one.xml")]) == 1
    assert "tests/test_suite.py takes more than 60 s" in capsys.readouterr().err


def test_branches_are_counted_by_module_and_the_worst_comes_first() -> None:
    def told(taken: int, there: int, *missing: tuple[int, int]) -> object:
        return {"summary": {"covered_branches": taken, "num_branches": there}, "missing_branches": missing}

    found = branches.of_report({"files": {"a.py": told(4, 4), "b.py": told(1, 3, (5, 6), (7, -2)), "c.py": told(0, 0)}})
    assert list(branches.lines(found)) == [
        " 33.3% b.py (1 of 3): 5 to 6, 7 to the end",
        " 71.4% of 7 branches in 3 modules",
    ]
