"""What README promises: its commands are those of the tested page, its figures those that were measured."""

from __future__ import annotations

import re

from tests.kit import references

ROOT = references.ROOT
README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A row of the guarantees: what was measured, and the page that has it.
ROW = re.compile(r"^\|[^|]+\| ([^|]*\d[^|]*) \| \[\w+\]\((docs/\w+\.md)\) \|$", re.MULTILINE)


def lines(text: str) -> set[str]:
    return {line for block in FENCED.findall(text) for line in block.splitlines()}


def test_its_commands_are_tested_word_for_word() -> None:
    commands = lines(README)
    assert len(commands) >= 8
    assert commands <= lines((ROOT / "docs" / "start.md").read_text())


def test_its_figures_are_those_that_were_measured() -> None:
    rows = ROW.findall(README)
    assert len(rows) >= 5
    for said, page in rows:
        measured = (ROOT / page).read_text()
        for figure in re.findall(r"\d[\d.,]*\d|\d", said):
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d]|[.,]\d)", measured), f"{figure} is not in {page}"


def test_the_targets_that_it_names_are_there() -> None:
    targets = re.findall(r"\bmake ([a-z-]+)", README)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{each}:" in makefile for each in targets)
