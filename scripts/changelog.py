"""Gathers ``changelog.d`` into ``CHANGELOG.md``: ``changelog.py VERSION DAY``. ``scripts/release`` calls it.

What an operator reads first comes first: what to do before an upgrade.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER, FILE = Path("changelog.d"), Path("CHANGELOG.md")
HEAD = "# Changes\n\nFor operators, the newest release first. How to upgrade: docs/install.md.\n"
#: The name of a file begins with one of these words, or else it tells of something new.
SECTIONS = {
    "upgrade": "Before you upgrade",
    "security": "Security",
    "": "New and changed",
    "fixed": "Mended",
}


def main() -> None:
    version, day = sys.argv[1:]
    files = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
    if not files:
        sys.exit("changelog.d tells of no change: there is nothing to release.")
    before = FILE.read_text().removeprefix(HEAD) if FILE.exists() else ""
    FILE.write_text(f"{HEAD}\n## {version} ({day})\n{gathered(files)}{before}")
    for path in files:
        path.unlink()


def gathered(files: list[Path]) -> str:
    text = ""
    for word, title in SECTIONS.items():
        mine = [path for path in files if _section(path) == word]
        if mine:
            text += f"\n### {title}\n\n" + "".join(_entry(path) for path in mine)
    return text


def _section(path: Path) -> str:
    word = path.stem.partition("-")[0]
    return word if word in SECTIONS else ""


def _entry(path: Path) -> str:
    lines = path.read_text().strip().splitlines()
    return "* " + "\n  ".join(lines) + "\n"


if __name__ == "__main__":
    main()
