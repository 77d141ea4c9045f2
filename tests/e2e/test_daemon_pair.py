"""Two VMs under one daemon: nobody starves, and together they stay within what the host allows."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.state.values import Vm as Entry
from tests.e2e.agents import wait_for_agentd
from tests.e2e.hosted import Hosted
from tests.e2e.rig import NAME, Rig
from tests.kit import disks
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 96 * MIB
OTHER = "other"
VMS = (NAME, OTHER)
PACK = 2 * MIB
RATE = 4 * MIB


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vm, Vm]]:
    """Disks of the same name and size; what is on them differs."""
    with contextlib.ExitStack() as stack:
        made = []
        for number, name in enumerate(VMS):
            image = disks.make_filled(tmp_path_factory.mktemp(name) / "data.raw", SIZE, seed=number)
            made.append(stack.enter_context(Vm((disks.Disk(image, "raw", "data"),), memory_mib=192)))
        for vm in made:
            wait_for_agentd(vm)
        yield made[0], made[1]


@pytest.fixture
def daemon(tmp_path: Path, machines: tuple[Vm, Vm]) -> Iterator[Hosted]:
    """Packs are small, so that what comes into the store can be told from second to second."""
    rig = Rig(tmp_path / "rig", machines[0], agent=True)
    other = machines[1]
    with rig.journal() as journal:
        journal.add_vm(Entry(OTHER, other.qmp_socket, str(other.agent_socket), other.qga_socket))
    constants = {
        "headstart.repository.layout:PACK_SIZE": PACK,
        "headstart.host.steering:TURN_SECONDS": 3.0,
    }
    with Hosted(rig, constants=constants) as made:
        yield made
        made.stop()
        for name, vm in zip(VMS, machines, strict=True):
            made.assert_exact(name)
            rig.vm = vm
            rig.assert_tidy()
            rig.release(name)


def stored(daemon: Hosted) -> int:
    packs = (daemon.rig.folder / "repository" / "packs").rglob("*")
    return sum(path.stat().st_size for path in packs if path.is_file())


def copied(daemon: Hosted, vm: str) -> int:
    """Bytes that were read ahead, also by a round that is under way."""
    doing = daemon.status(vm)["doing"]
    ended = sum(run["copied_bytes"] for run in daemon.runs("precopy", vm))
    return int(ended + (doing["done"] if doing is not None and doing["verb"] == "precopy" else 0))


def watch(daemon: Hosted, seconds: float) -> Iterator[tuple[float, int, dict[str, bool]]]:
    """Every now and then: the time, what is in the store, and who copies."""
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        yield now, stored(daemon), {name: daemon.copying(name) for name in VMS}
        time.sleep(0.2)


def test_both_get_on_within_the_rate_of_the_store(daemon: Hosted) -> None:
    daemon.configure(daemon.later(), interval="1h", host=f'rounds = 2\nstore_rate = "{RATE // MIB}MiB/s"')
    daemon.start()
    daemon.wait(lambda: all(daemon.copying(name) for name in VMS))
    seen = list(watch(daemon, 8.0))
    assert sum(all(who.values()) for _, _, who in seen) > len(seen) / 2, "both at the same time"
    for place, (since, before, _) in enumerate(seen):
        for until, after, _ in seen[place + 1 :]:
            # One pack each is on its way, and a quarter of a second is made up for.
            assert after - before < RATE * (until - since + 0.5) + 2 * PACK, (since, until)
    assert seen[-1][1] - seen[0][1] > RATE * 8 / 4, "it is used"
    got = sorted(copied(daemon, name) for name in VMS)
    assert got[0] > got[1] / 4 > 0, got
    calendar, _ = daemon.soon(3.0)
    daemon.configure(calendar, interval="1h", host="rounds = 2")
    daemon.reload()
    for name in VMS:
        daemon.wait_backups(1, vm=name)
    assert all(disk["precopied_bytes"] for name in VMS for disk in daemon.runs("backup", name)[-1]["disks"])


def test_they_take_turns(daemon: Hosted) -> None:
    daemon.configure(daemon.later(), interval="1h", rate="4MiB/s", host="rounds = 1")
    daemon.start()
    daemon.wait(lambda: any(daemon.copying(name) for name in VMS))
    seen = list(watch(daemon, 18.0))
    assert not any(all(who.values()) for _, _, who in seen), "one at a time"
    turns = [name for _, _, who in seen for name in VMS if who[name]]
    changes = sum(one != next_one for one, next_one in itertools.pairwise(turns))
    assert changes >= 2, daemon.log[-4000:]
    got = sorted(copied(daemon, name) for name in VMS)
    assert got[0] > got[1] / 4 > 0, got
    for name in VMS:
        daemon.back_up(name)
