"""Looks for a pattern in what a guest has written: a process of its own.

Patterns are anybody's, and what they are looked for in is the guest's: together they may take time without an end, in
which nothing else of Python's would run.

Runs as ``python -I -S signs_process.py``, with JSON on stdin: the pattern and the text. Status 0: it is there.
"""

from __future__ import annotations

import json
import re
import resource
import sys

#: Python ends with 1 by itself.
FOUND, NOT_FOUND = 0, 3
#: Of a processor, whatever becomes of who has started it.
CPU_SECONDS = 5
#: Characters of a line that are searched at once: each part overlaps the one before by half.
_PART = 500


def is_in(pattern: str, text: str) -> bool:
    """Line by line. So patterns with a ``.*`` or two, the usual ones, are quick whatever is written."""
    searched = re.compile(pattern)
    return any(
        searched.search(line, start, start + _PART)
        for line in text.splitlines()
        for start in range(0, max(1, len(line) - _PART // 2), _PART // 2)
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    sys.exit(FOUND if is_in(*json.load(sys.stdin)) else NOT_FOUND)
