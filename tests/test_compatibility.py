"""What ``docs/compatibility.md`` claims is shown by tests that exist, and its table of releases is the code's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from headstart.hypervisor.qemu import versions
from headstart.hypervisor.qemu.versions import Kind, Row
from tests.kit import references

PAGE = (references.ROOT / "docs" / "compatibility.md").read_text()
NAMED = re.compile(r"`(tests/\S+\.py::\w+)`")


def tables() -> Iterator[tuple[str, list[str]]]:
    """The heading and the cells of each row, without those of heads."""
    heading, head = "", True
    for line in PAGE.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        if not line.startswith("|"):
            head = True
        elif re.fullmatch(r"[|-]+", line):
            head = False
        elif not head:
            yield heading, [cell.strip() for cell in line.strip("|").split("|")]


ROWS = list(tables())


@pytest.mark.parametrize("reference", sorted(set(NAMED.findall(PAGE))))
def test_every_test_that_is_named_exists(reference: str) -> None:
    assert references.exists(reference)


def test_a_test_that_is_not_there_is_found_out() -> None:
    assert not references.exists("tests/test_compatibility.py::test_nothing")
    assert not references.exists("tests/test_nowhere.py::test_nothing")


@pytest.mark.parametrize("heading", ["Plain QEMU", "libvirt", "Proxmox VE", "Guests alone"])
def test_every_cell_has_a_test_or_a_reason(heading: str) -> None:
    found = [cells for named, cells in ROWS if named == heading]
    assert len(found) >= 5
    for cells in found:
        assert len(cells) == 5, cells
        for cell in cells[2:]:
            assert NAMED.search(cell) or re.match(r"no: \w.{5}", cell), cell


def test_the_table_of_releases_is_the_codes() -> None:
    releases = [cells[0] for heading, cells in ROWS if heading == "Releases of QEMU" and len(cells) == 3]
    assert releases == [versions.told(each) for each in versions.RUN]
    told = {cells[0]: cells[1:] for heading, cells in ROWS if heading == "Releases of QEMU" and len(cells) == 5}
    assert told == {row.what: [*_holds(row), f"`{row.shown}`"] for row in versions.TABLE}


def _holds(row: Row) -> Iterator[str]:
    more = {Kind.UNUSED: ", not used", Kind.REFUSED: ", refused"}.get(row.kind, "")
    for release in versions.RUN:
        yield f"yes{more}" if row.holds(release) else "no"
