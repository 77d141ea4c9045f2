"""The list of long tests names tests that there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.long import LONG


def test_every_word_is_in_the_name_of_a_test() -> None:
    words = ("-m", "long", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", *LONG)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    found = [line.partition("::") for line in done.stdout.splitlines() if "::" in line]
    unused = [
        (file, word)
        for file, long in LONG.items()
        for word in long.words
        if not any(name == file and word in rest for name, _, rest in found)
    ]
    assert found and not unused, done.stdout[-2000:]
