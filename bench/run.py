"""``make bench``: the figures of docs/benchmarks.md and build/bench/result.json."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path

from bench import boots, contest, inside, machine, page, peace, peer, published, realdisk, rivals, serving, windows

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
WORK = realdisk.CACHE / "work"
RUNS = 3


def main() -> int:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    shutil.rmtree(WORK, ignore_errors=True)
    try:
        figures = [
            *contest.run(WORK / "contest", RUNS, say),
            *rivals.run(WORK / "rivals", RUNS, say),
            *serving.run(WORK / "serving", RUNS, say),
            *windows.run(WORK / "windows", RUNS, say),
            *inside.run(WORK / "inside", RUNS, say),
            *peer.run(WORK / "peer", RUNS, say),
            *peace.run(WORK / "peace", 1, say),
            *boots.run(WORK / "boots", RUNS, say),
        ]
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    before = published.read(PAGE.read_text())
    result = [dataclasses.asdict(figure) for figure in figures]
    (realdisk.CACHE / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    PAGE.write_text(page.written(figures, machine.describe()))
    print(page.table(figures))
    print("\nAgainst what was published last, beyond the noise:")
    for told in (*published.changes(before, figures), *sorted(published.missing(before, figures))):
        print(f"- {told}")
    say(f"written: build/bench/result.json, {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
