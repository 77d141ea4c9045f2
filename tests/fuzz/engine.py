"""A target under Atheris, which is libFuzzer for Python: inputs that reach code which none before them reached are
changed further. ``python -m tests.fuzz`` calls this in a process of its own, as the engine ends its process.

What it finds new stands in ``build/fuzz/TARGET`` and is not lost; the kept corpus is only read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
#: Bytes of an input; megabytes of the process; seconds that one input may take.
LONGEST, MEMORY, PATIENCE = 4096, 2048, 10


def main() -> None:
    name, seconds, work = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    # Before anything of ours is loaded: only what is loaded from here on tells where it has been.
    with atheris.instrument_imports(include=["headstart"]):
        from tests.fuzz.targets import TARGETS
    work.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY}", f"-timeout={PATIENCE}"]
    options += [f"-artifact_prefix={work.parent}/found-{name}-", "-print_final_stats=1", "-verbosity=1"]
    corpus = HERE / "corpus" / name
    atheris.Setup([sys.argv[0], *options, str(work), *([str(corpus)] if corpus.is_dir() else [])], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
