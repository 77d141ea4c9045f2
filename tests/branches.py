"""``python -m tests.branches``: which share of the core's branches was taken in the run that coverage.py recorded.

The core is what ``[tool.coverage.run]`` in ``pyproject.toml`` includes. The exit status is 1 if it is less than WANTED.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

WANTED = 0.95


class Taken(NamedTuple):
    """Branches of a module. ``missing``: from which line to which, as coverage.py tells it."""

    module: str
    taken: int
    there: int
    missing: Sequence[str]

    @property
    def share(self) -> float:
        return self.taken / self.there if self.there else 1.0


def of_report(report: dict[str, Any]) -> list[Taken]:
    """By module, the least covered first."""
    return sorted(_modules(report), key=lambda each: (each.share, each.module))


def _modules(report: dict[str, Any]) -> Iterator[Taken]:
    for module, told in report["files"].items():
        summary = told["summary"]
        missing = [f"{begin} to {'the end' if end < 0 else end}" for begin, end in told["missing_branches"]]
        yield Taken(module, summary["covered_branches"], summary["num_branches"], missing)


def lines(modules: Sequence[Taken]) -> Iterator[str]:
    """Those that lack something, and the whole."""
    for each in modules:
        if each.missing:
            yield f"{each.share:6.1%} {each.module} ({each.taken} of {each.there}): {', '.join(each.missing)}"
    yield f"{total(modules):6.1%} of {sum(each.there for each in modules)} branches in {len(modules)} modules"


def total(modules: Sequence[Taken]) -> float:
    there = sum(each.there for each in modules)
    return sum(each.taken for each in modules) / there if there else 0.0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", report], check=True)
        modules = of_report(json.loads(report.read_text()))
    print(*lines(modules), sep="\n")
    return 0 if total(modules) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
