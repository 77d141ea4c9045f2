"""``python -m handbook [FOLDER]``: the site, as HTML. Fails where a link leads nowhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from handbook import source

ROOT = Path(__file__).parents[1]


def main() -> int:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "handbook")
    shutil.rmtree(target, ignore_errors=True)
    source.write(ROOT, target / "source")
    # Warnings are errors: most of them are links to pages, headings and files that are not there.
    strict = ("--fail-on-warning", "--keep-going", "--quiet", "--jobs=auto")
    settings = ("-c", str(Path(__file__).parent), "-d", str(target / "doctrees"))
    command = [sys.executable, "-m", "sphinx", *strict, *settings, str(target / "source"), str(target / "html")]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        print(f"{target / 'html' / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
