"""How several processes share the tests: a file at a time, the longest first."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

#: Files, and folders of files, with few tests that take long. Begun last, one would keep one process busy, and leave
#: the others with nothing to do.
EARLY = (
    "tests/e2e/",
    "tests/backup/test_collecting.py",
    "tests/repository/test_thousand_damages.py",
    "tests/server/test_catalogue.py",
    "tests/server/test_isolation.py",
    "tests/server/test_jobs_pair.py",
    "tests/server/test_stream.py",
    "tests/test_handbook.py",
)


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Those that take long, then by files, those with most tests first."""
    chosen = list(items)
    count = Counter(map(_file, chosen))
    return sorted(chosen, key=lambda item: (not _file(item).startswith(EARLY), -count[_file(item)]))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


class Sharing(LoadFileScheduling):  # type: ignore[misc]
    """Of several workers each takes a file at a time. All that wants libvirt is one worker's: a machine has one
    libvirtd, and another one would only wait. (The groups of ``--dist loadgroup`` need an attribute that pytest 9 has
    no longer.)"""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # as ``in_order``

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        wants = "libvirt" in nodeid or ("[qemu" not in nodeid and _names_libvirtd(file))
        return "libvirt" if wants else file


@functools.cache
def _names_libvirtd(file: str) -> bool:
    return "Libvirtd" in Path(file).read_text()
