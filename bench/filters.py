"""What a filter costs the guest: single writes of 4 KiB, each waited for, one in each block of 64 KiB.

python -m bench.filters [BLOCKS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from headstart.guest import agent
from tests.kit import disks, era
from tests.kit.vm import Vm

BLOCK = 64 << 10
PROGRAM = """
import mmap, os, sys, time
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
memory = mmap.mmap(-1, 4096)
memory.write(os.urandom(4096))
seconds = []
for block in range(int(sys.argv[2])):
    began = time.monotonic()
    os.lseek(descriptor, block * 65536, 0)
    os.write(descriptor, memory)
    seconds.append(time.monotonic() - began)
seconds.sort()
print(len(seconds) / sum(seconds), seconds[len(seconds) // 2] * 1000, seconds[len(seconds) * 99 // 100] * 1000)
"""


def main(blocks: int = 1000) -> None:
    with tempfile.TemporaryDirectory(prefix="headstart-bench-", dir="/tmp") as folder:
        chosen = (
            disks.Disk(disks.make_empty(Path(folder, "plain.raw"), blocks * BLOCK), "raw", "plain"),
            disks.Disk(disks.make_empty(Path(folder, "data.raw"), blocks * BLOCK), "raw", "data"),
            disks.Disk(disks.make_empty(Path(folder, "companion.raw"), 2 * blocks * BLOCK), "raw", "companion"),
            era.disk(Path(folder)),
        )
        with Vm(chosen) as vm:
            filters = era.Filters(vm.guest, vm.device("era"))
            filters.run("add", "data", vm.device("data"), vm.device("companion"))
            vm.guest.run(f"cat >/tmp/bench.py <<'END'\n{PROGRAM}\nEND")
            with agent.connect(str(vm.agent_socket)) as session:
                _measure(vm, session, blocks)


def _measure(vm: Vm, session: agent.Agent, blocks: int) -> None:
    def tell(what: str, device: str) -> None:
        told = vm.guest.run(f"python3 -I -S /tmp/bench.py {device} {blocks}", timeout=200).output.split()
        rate, half, most = map(float, told)
        print(f"{what:44} {rate:6.0f} writes/s   p50 {half:6.2f} ms   p99 {most:6.2f} ms", flush=True)

    asked = session.filters()
    for _ in range(2):
        tell("without a filter", vm.device("plain"))
        asked.mark({"data": ["bench"]}, {})
        tell("first write of a block in an era", "/dev/mapper/data")
        tell("written again in the same era", "/dev/mapper/data")
        asked.mark({}, {"data": ["bench"]})
        hold = asked.hold(["data"], {})
        print(f"a point in time: nothing was written for {hold.seconds * 1000:.0f} ms")
        tell("first write, while a point in time stands", "/dev/mapper/data")
        tell("again, while it stands", "/dev/mapper/data")
        hold.release()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
