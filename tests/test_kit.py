"""The kit itself is right: what it says about a guest, and above all what its ledger checker lets through."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import cli, compare, control, disks, ledger, workloads
from tests.kit.inguest import content, records
from tests.kit.vm import Vm

MIB = disks.MIB
FREE = 224 * MIB  # where the free room of disks.two_disks begins

LAYOUT = records.Layout(seed=7, disks=2, offset=64 * 1024, slots=20)


class Images:
    """Two raw images on which a ledger is written the way the workload does it, up to a planted fault."""

    def __init__(self, folder: Path) -> None:
        self.paths = [disks.make_empty(folder / f"{index}.raw", MIB) for index in range(LAYOUT.disks)]
        self._history = records.History(LAYOUT)

    def write(self, number: int, *, begin: int = 0, end: int = LAYOUT.record, to_disk: bool = True) -> None:
        self._history.advance(number)
        disk, slot = LAYOUT.place(number)
        if to_disk:
            self.overwrite(disk, LAYOUT.position(slot) + begin, self._history.content(disk, slot)[begin:end])

    def overwrite(self, disk: int, offset: int, data: bytes) -> None:
        with self.paths[disk].open("r+b") as file:
            file.seek(offset)
            file.write(data)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


def test_a_whole_ledger_is_accepted(images: Images) -> None:
    for number in range(1, 101):
        images.write(number)
    assert ledger.check(LAYOUT, images.paths, acknowledged=100, begun=101) == ledger.State(100, torn=False)


def test_an_empty_region_is_the_state_before_the_first_record(images: Images) -> None:
    assert ledger.check(LAYOUT, images.paths) == ledger.State(0, torn=False)


@pytest.mark.parametrize(("begin", "end"), [(0, 512), (512, 4096), (LAYOUT.record - 512, LAYOUT.record)])
def test_the_record_in_flight_may_be_torn(images: Images, begin: int, end: int) -> None:
    for number in range(1, 101):
        images.write(number)
    images.write(101, begin=begin, end=end)
    assert ledger.check(LAYOUT, images.paths, begun=101) == ledger.State(100, torn=True)


def test_a_torn_record_that_was_acknowledged_is_refused(images: Images) -> None:
    for number in range(1, 100):
        images.write(number)
    images.write(100, end=4096)
    with pytest.raises(ledger.LedgerBroken, match="100 was acknowledged"):
        ledger.check(LAYOUT, images.paths, acknowledged=100)


def test_an_earlier_torn_record_is_refused(images: Images) -> None:
    for number in range(1, 100):
        images.write(number)
    images.write(100, end=4096)
    images.write(101)
    with pytest.raises(ledger.LedgerBroken, match="record 101 is there, but 1 slots"):
        ledger.check(LAYOUT, images.paths)


@pytest.mark.parametrize("which", [0, 20, -1])
def test_a_missing_write_is_refused(images: Images, which: int) -> None:
    """Any record that no later one has overwritten is missed: the oldest, one between, the newest but one."""
    standing = sorted({LAYOUT.place(number): number for number in range(1, 101)}.values())[:-1]
    for number in range(1, 101):
        images.write(number, to_disk=number != standing[which])
    with pytest.raises(ledger.LedgerBroken, match="no point in time: record 100 is there, but 1 slots"):
        ledger.check(LAYOUT, images.paths)


def test_disks_of_different_times_are_refused(images: Images) -> None:
    """Each disk is right in itself; one was taken three records later."""
    for number in range(1, 104):
        images.write(number, to_disk=number <= 100 or LAYOUT.place(number)[0] == 0)
    with pytest.raises(ledger.LedgerBroken, match="no point in time"):
        ledger.check(LAYOUT, images.paths)


def test_an_older_state_than_acknowledged_is_refused(images: Images) -> None:
    for number in range(1, 101):
        images.write(number)
    with pytest.raises(ledger.LedgerBroken, match="end with record 100, but 101"):
        ledger.check(LAYOUT, images.paths, acknowledged=101)


def test_a_later_state_than_begun_is_refused(images: Images) -> None:
    for number in range(1, 101):
        images.write(number)
    with pytest.raises(ledger.LedgerBroken, match="99 was the last one begun"):
        ledger.check(LAYOUT, images.paths, begun=99)


def test_a_changed_byte_is_refused(images: Images) -> None:
    for number in range(1, 101):
        images.write(number)
    disk, slot = LAYOUT.place(97)
    images.overwrite(disk, LAYOUT.position(slot) + 1000, b"?")
    with pytest.raises(ledger.LedgerBroken, match="holds nothing that was written"):
        ledger.check(LAYOUT, images.paths)


def test_compare_names_the_first_difference(tmp_path: Path) -> None:
    one = disks.make_filled(tmp_path / "one", 3 * MIB + 512)
    other = disks.make_filled(tmp_path / "other.qcow2", 3 * MIB + 512, "qcow2")
    compare.assert_identical(one, other, "raw", "qcow2")
    compare.assert_bytes(other, 0, content.random_bytes("1:0", 4096), "qcow2")
    with one.open("r+b") as file:
        file.seek(2 * MIB + 700)
        file.write(b"?")
    with pytest.raises(AssertionError, match=f"differ in 1 places: 512 bytes at {2 * MIB + 512}"):
        compare.assert_identical(one, other, "raw", "qcow2")
    with pytest.raises(AssertionError, match=f"is expected at {2 * MIB + 700}"):
        compare.assert_bytes(one, 2 * MIB, bytes(MIB))


def test_the_guest_reads_what_it_wrote(module_vm: Vm) -> None:
    guest = module_vm.guest
    expected = content.random_bytes("x", 3 * MIB)
    for name in ("system", "data"):
        device = module_vm.device(name)
        guest.write(device, FREE, len(expected), seed="x")
        assert guest.read(device, FREE, 4096) == expected[:4096]
        assert guest.hash(device, FREE, len(expected)) == hashlib.blake2b(expected).hexdigest()
        guest.discard(device, FREE, MIB)
        guest.write_zeroes(device, FREE + MIB, 2 * MIB)
        assert guest.hash(device, FREE, len(expected)) == hashlib.blake2b(bytes(len(expected))).hexdigest()


def test_errors_in_the_guest_come_out(module_vm: Vm) -> None:
    with pytest.raises(control.GuestError, match="ended with 3: spoken"):
        module_vm.guest.run("echo spoken; exit 3")
    with pytest.raises(control.GuestError, match="FileNotFoundError"):
        module_vm.guest.read("/dev/missing", 0, 512)


@pytest.mark.alone
def test_churn_counts_and_holds_its_rate(module_vm: Vm) -> None:
    guest = module_vm.guest
    guest.mount(module_vm.device("system") + "1", "/mnt")
    regions = [
        workloads.Region("/mnt/file", 0, 4 * MIB),
        workloads.Region(module_vm.device("data"), 16 * MIB, 4 * MIB),
    ]
    with workloads.churn(guest, regions, rate=4 * MIB) as churn:
        began = time.monotonic()
        time.sleep(1.5)
        held = churn.stats(began, began + 1)
        assert 40 <= held.count <= 90, held  # 64 a second
        assert held.p50 is not None and held.p99 is not None and 0 < held.p50 <= held.p99
        churn.set_rate(None)
        churn.wait_changed(8 * MIB)
        stats = churn.stats()
        assert stats.distinct == 8 * MIB and stats.written > stats.distinct and stats.running
        samples = churn.samples(began)
        assert samples and all(began <= finished <= time.monotonic() for finished, _ in samples)
    guest.unmount("/mnt")


def test_freeze_holds_writes_until_the_thaw(module_vm: Vm) -> None:
    guest = module_vm.guest
    guest.mount(module_vm.device("system") + "1", "/mnt")
    guest.freeze("/mnt")
    with pytest.raises(control.NoAnswer):
        guest.call("run", command="touch /mnt/new", timeout_in_guest=60, timeout=1)
    guest.thaw("/mnt")
    guest.run("sync; rm /mnt/new")
    guest.unmount("/mnt")


def test_qga_freezes(module_vm: Vm) -> None:
    guest = module_vm.guest
    guest.mount(module_vm.device("system") + "1", "/mnt")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(10)
        agent.connect(str(module_vm.qga_socket))

        def call(command: str) -> object:
            agent.sendall(json.dumps({"execute": command}).encode() + b"\n")
            return json.loads(agent.makefile("rb").readline())["return"]

        assert call("guest-fsfreeze-freeze") == 1
        with pytest.raises(control.GuestError, match="busy"):
            guest.freeze("/mnt")
        assert call("guest-fsfreeze-status") == "frozen"
        assert call("guest-fsfreeze-thaw") == 1
    guest.unmount("/mnt")


def test_guests_of_one_state_are_not_one(tmp_path: Path, new_vm: Callable[..., Vm]) -> None:
    """They have booted once, and then gone their own ways."""

    def told(name: str) -> list[str]:
        vm = new_vm([disks.Disk(disks.make_empty(tmp_path / name, MIB), "raw", name)])
        assert vm.device(name) == "/dev/vda"
        assert abs(float(vm.guest.run("date +%s").output) - time.time()) < 10
        sources = ("/dev/urandom", "/proc/sys/kernel/random/uuid", "/proc/sys/kernel/random/boot_id")
        return [vm.guest.run(f"head -c 16 {each} | od -A n -t x1").output for each in sources]

    one, other = told("one"), told("other")
    assert not set(one) & set(other)


def test_a_vm_lives_on_through_reset_and_restart(tmp_path: Path, new_vm: Callable[..., Vm]) -> None:
    """A ledger survives a power cut and goes on; a workload's disks stand in an iothread and in a plain -drive."""
    paths = [disks.make_empty(tmp_path / f"{name}.raw", 32 * MIB) for name in "ab"]
    vm = new_vm(
        [
            disks.Disk(paths[0], "raw", "a", iothread=True),
            disks.Disk(paths[1], "raw", "b", interface="virtio-scsi", blockdev=False),
        ]
    )
    devices = [vm.device("a"), vm.device("b")]
    first = workloads.ledger(vm.guest, devices, slots=100)
    first.wait_acknowledged(50)
    acknowledged = first.acknowledged()
    vm.kill()
    state = ledger.check(first.layout, paths, acknowledged=acknowledged)

    vm.restart()
    pid = vm.pid
    with workloads.ledger(vm.guest, devices, slots=100, first=state.last + 1) as second:
        second.wait_acknowledged(state.last + 50)
    stopped_at = second.acknowledged()
    boot = vm.boot_id
    vm.reset()
    assert vm.pid == pid and vm.boot_id != boot
    vm.power_off()
    assert not vm.running
    end = ledger.check(second.layout, paths)
    assert end == ledger.State(stopped_at, torn=False)


def run_crash(*options: str | Path) -> subprocess.CompletedProcess[str]:
    """json.tool, with faults planted in it."""
    command = [sys.executable, "-m", "tests.kit.crash", "--main", "json.tool:main", *options]
    return subprocess.run(command, input="{}", capture_output=True, text=True, cwd=cli.ROOT, timeout=30)


def test_a_program_dies_where_it_was_told(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    assert run_crash("--count", "json:load", "--count", "json:loads", "--counts", counts).stdout == "{}\n"
    assert json.loads(counts.read_text()) == {"json:load": 1, "json:loads": 1}
    assert run_crash("--before", "json:load:2").returncode == 0
    for option, place in (("--before", "json:load:1"), ("--after", "json.decoder:JSONDecoder.decode:1")):
        died = run_crash(option, place)
        assert (died.returncode, died.stdout) == (-signal.SIGKILL, "")


def is_qemu(pid: int) -> bool:
    try:
        return "qemu" in Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.vm
def test_no_qemu_outlives_its_test_process() -> None:
    """However that ends: a killed pytest must not leave machines behind."""
    script = """if True:
        import signal
        from tests.kit.vm import Vm
        vm = Vm([])
        vm.start()
        print(vm.pid, vm.qmp_socket.parent, flush=True)
        signal.pause()
    """
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cli.ROOT) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        assert is_qemu(int(pid))
        process.kill()
    deadline = time.monotonic() + 10
    while is_qemu(int(pid)):
        assert time.monotonic() < deadline, "QEMU lives on"
        time.sleep(0.05)
    shutil.rmtree(folder)
