"""``python -m tests.fuzz TARGET|all [SECONDS]``: each target for so long, one after the other; a line for each.

``python -m tests.fuzz distil`` takes into the corpora what was found to reach more.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "fuzz"
SECONDS = 60
#: What libFuzzer says at its end.
_FIGURES = {"runs": r"stat::number_of_executed_units: (\d+)", "reached": r"cov: (\d+) ft: \d+(?!.*cov: )"}


def fuzz(name: str, seconds: int) -> bool:
    """Whether nothing was found. What was is in ``build/fuzz``, with the input as a file."""
    corpus.add(WORK / name, seeds()[name])
    log = WORK / f"{name}.log"
    with log.open("wb") as file:
        status = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.engine", name, str(seconds), str(WORK / name)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
    told = log.read_text(errors="replace")
    found = {what: re.search(form, told, re.DOTALL) for what, form in _FIGURES.items()}
    figures = ", ".join(f"{what} {match[1]}" for what, match in found.items() if match)
    print(f"{name}: {figures}{'' if status == 0 else f'  FOUND SOMETHING, see {log}'}", flush=True)
    return status == 0


def distil() -> None:
    """Into the corpus goes what reaches something."""
    for name, target in TARGETS.items():
        inputs = [path.read_bytes() for path in (*corpus.kept(name), *(WORK / name).glob("*"))]
        chosen = corpus.distilled(target, inputs)
        corpus.keep(name, chosen)
        print(f"{name}: {len(chosen)} of {len(inputs)} inputs, {sum(map(len, chosen))} bytes")


def main(given: list[str]) -> int:
    if given == ["distil"]:
        distil()
    elif given and (given[0] == "all" or given[0] in TARGETS):
        names = list(TARGETS) if given[0] == "all" else given[:1]
        seconds = int(given[1]) if given[1:] else SECONDS
        return 0 if sum(not fuzz(name, seconds) for name in names) == 0 else 1
    else:
        print(f"Usage: python -m tests.fuzz TARGET|all|distil [SECONDS]\nTargets: {', '.join(TARGETS)}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
