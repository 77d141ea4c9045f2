"""``python -m tests.times FILE...``: which modules take longest, and why, out of what ``pytest --junitxml`` wrote.

``make test`` writes such files to build/times. The exit status is 1 if a module takes more than SLOW_SECONDS, and WHY
does not say what for.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.long import LONG

ROOT = Path(__file__).parents[1]
MOST = 25
SLOW_SECONDS = 60.0

BOOTS = "boots guests, under TCG"

#: By module, or by folder.
WHY: Mapping[str, str] = {
    "tests/agentd": f"{BOOTS}: freezing is the kernel's",
    "tests/appliance": "processes, TLS and NBD servers that are killed",
    "tests/backup/test_collecting.py": "every order of the steps of two programs",
    "tests/backup/test_enemy.py": "each vice of an agent, by a whole backup",
    "tests/backup/test_excluding.py": "each fault point of a backup without a volume",
    "tests/backup/test_planted_bugs.py": "as many lives as it takes to find each bug",
    "tests/backup/test_state_machine.py": "Hypothesis searches orders of backups and misfortunes",
    "tests/cli": "a process for each command",
    "tests/cli/test_contract.py": "a process for each command, and each of its ways to fail",
    "tests/cli/test_disaster.py": "other machines and a server of S3",
    "tests/cli/test_serve.py": "clients of QEMU's and libnbd's",
    "tests/e2e": BOOTS,
    "tests/e2e/test_libvirt.py": "boots domains; libvirtd is one for all, so they wait for each other",
    "tests/e2e/test_boot_libvirt.py": "boots domains; libvirtd is one for all",
    "tests/e2e/test_exact.py": "boots guests that write all the time: plain QEMU, and a domain",
    "tests/fuzz": "what the fuzzer found, and random changes of it",
    "tests/guest": f"{BOOTS}: kernels' device maps, old agents, ssh",
    "tests/host/test_picture.py": "draws weeks",
    "tests/host": "the daemon in simulated days, which wait for its threads",
    "tests/hypervisor": "starts QEMU and libvirtd for each driver",
    "tests/repository": "writes, damages and reads whole repositories, 300,000 chunks in one test",
    "tests/restore": "real file systems, formats and NBD clients",
    "tests/server/test_browser.py": "Chromium",
    "tests/server/test_schema.py": "the whole API, asked by schemathesis",
    "tests/server/test_notices.py": "servers that wait for what goes together",
    "tests/server": "starts servers, two on PostgreSQL, with keys that are slow to derive",
    "tests/simulation": "weeks of real VMs, replayed",
    "tests/soak": "a share of the soak",
    "tests/store/test_contract.py": "each promise for each kind of store, servers among them",
    "tests/store": "a server of S3 that fails and is slow",
    "tests/test_handbook.py": "builds the site",
    "tests/test_deploy.py": "asks systemd of its units",
    "tests/tracking": "starts QEMU for each kind of mark",
    "tests/transfer": "each reader there is, real NBD servers among them",
}


class Taken(NamedTuple):
    module: str
    seconds: float
    tests: int


def of_reports(reports: Sequence[Path]) -> list[Taken]:
    """The slowest first; with what a module's fixtures took."""
    seconds, tests = Counter[str](), Counter[str]()
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            module = _module(case.get("classname", ""))
            seconds[module] += float(case.get("time", "0"))  # type: ignore[assignment]
            tests[module] += 1
    found = [Taken(module, took, tests[module]) for module, took in seconds.items()]
    return sorted(found, key=lambda each: (-each.seconds, each.module))


def _module(name: str) -> str:
    """The file of ``tests.folder.test_this``, or of a class in it."""
    words = name.split(".")
    while words and not (ROOT / Path(*words)).with_suffix(".py").is_file():
        words.pop()
    return f"{'/'.join(words)}.py" if words else name


def why(module: str) -> str:
    """Empty where nobody has said it."""
    return WHY.get(module) or WHY.get(str(Path(*Path(module).parts[:2])), "")


def table(found: Sequence[Taken]) -> Iterator[str]:
    yield "| module | seconds | tests | why |"
    yield "|---|---:|---:|---|"
    for each in found[:MOST]:
        rest = "; the rest in `make soak`" if each.module in LONG else ""
        yield f"| `{each.module}` | {each.seconds:.0f} | {each.tests} | {why(each.module)}{rest} |"
    yield f"| all {len(found)} | {sum(each.seconds for each in found):.0f} | {sum(each.tests for each in found)} | |"


def main(reports: Sequence[str]) -> int:
    found = of_reports([Path(each) for each in reports])
    print(*table(found), sep="\n")
    unsaid = [each.module for each in found if each.seconds > SLOW_SECONDS and not why(each.module)]
    for module in unsaid:
        print(f"{module} takes more than {SLOW_SECONDS:.0f} s: tests/times.py does not say why", file=sys.stderr)
    return 1 if unsaid else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
