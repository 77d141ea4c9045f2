"""Real QEMU machines that run the test guest."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.kit import booted, control, disks, guest
from tests.kit import qmp as qmp_client
from tests.kit.inguest import WITHOUT_DISKS

#: TCG: a stock guest may hang on the KVM of a nested machine. Override with HEADSTART_TEST_ACCEL=kvm.
ACCELERATOR = os.environ.get("HEADSTART_TEST_ACCEL", "tcg")

#: TCG runs vector instructions so slowly that a guest copies memory in half of a processor's time without them.
CPU = "qemu64,+rdrand"

BOOT_TIMEOUT = 90.0
EXIT_TIMEOUT = 30.0

KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet mitigations=off no_timer_check tsc=reliable random.trust_cpu=on cryptomgr.notests "
    "raid=noautodetect"
)


class Vm:
    """A VM with the test guest; as a context manager it is running and answering inside the ``with``.

    ``qmp_socket``, ``qga_socket`` and ``agent_socket`` are for the product, nobody else is connected to them; the
    tests have a monitor of their own behind ``qmp()``. QEMU is killed when the thread that started it ends, in any way.

    The guest has booted before, see ``booted``, if nothing is ``extra``. ``boots``: it boots here, for who starts it
    once more by QEMU's command line.
    """

    def __init__(
        self,
        vm_disks: Sequence[disks.Disk],
        *,
        memory_mib: int = 256,
        cpus: int = 1,
        machine: str = "pc",
        extra: Sequence[str] = (),
        boots: bool = False,
    ) -> None:
        self.disks = tuple(vm_disks)
        self.extra = tuple(extra)
        self._boots = boots or bool(extra) or machine != "pc"
        self.boot_id = ""
        self._size = (memory_mib, cpus, machine)
        self._kernel_words = KERNEL_COMMAND_LINE
        # The path of a unix socket has at most 107 bytes: pytest's folders are too deep.
        self._folder = Path(tempfile.mkdtemp(prefix="headstart-vm-", dir="/tmp"))
        self.qmp_socket = self._folder / "qmp"
        self.qga_socket = self._folder / "qga"
        self.agent_socket = self._folder / "agent"
        self._test_qmp_socket = self._folder / "test-qmp"
        self._control_socket = self._folder / "control"
        self._process: subprocess.Popen[bytes] | _Adopted | None = None
        self._qmp: qmp_client.Qmp | None = None
        self._control: control.Control | None = None

    def __enter__(self) -> Vm:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what tests talk to

    @property
    def guest(self) -> control.Control:
        """Calls into the guest."""
        assert self._control is not None, "the VM is not running"
        return self._control

    def qmp(self, command: str, **arguments: Any) -> Any:
        """A command on the tests' own monitor."""
        assert self._qmp is not None, "the VM is not running"
        return self._qmp.execute(command, **arguments)

    def wait_event(self, name: str, **data: Any) -> dict[str, Any]:
        """The first event of this name with these data since the start, or the next one to come."""
        assert self._qmp is not None, "the VM is not running"
        return self._qmp.wait_event(name, **data)

    def events(self, name: str) -> list[dict[str, Any]]:
        """All events of this name that QEMU has sent so far."""
        assert self._qmp is not None, "the VM is not running"
        return self._qmp.drain(name)

    def disk(self, name: str) -> disks.Disk:
        return next(disk for disk in self.disks if disk.name == name)

    def device(self, name: str) -> str:
        """The guest's device, such as ``/dev/vda``, of the disk of this name."""
        return self.guest.device(self.disk(name).serial_number)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the VM is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """QEMU's process is there (the guest may be stopped)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What QEMU and the guest's kernel said."""
        return "".join(
            (self._folder / name).read_text(errors="replace")
            for name in ("qemu.log", "console.log")
            if (self._folder / name).exists()
        )

    # -- its life

    def start(self) -> None:
        """Start QEMU, in a new process. The guest may not have booted when this returns."""
        if self._boots:
            self._launch(*self._command())
        else:
            machine = [word.replace(str(self._folder), "") for word in self._machine()]
            state = booted.state(machine, self._save_booted)
            self._launch(*self._command(), "-incoming", f"exec:cat {state}")
            self._wait(lambda: bool(self.qmp("query-status")["running"]))
            self.guest.resume()

    def _launch(self, *command: str) -> None:
        assert not self.running, "the VM is running already"
        self._disconnect()
        for name in ("qmp", "qga", "agent", "test-qmp", "control"):
            (self._folder / name).unlink(missing_ok=True)
        with (self._folder / "qemu.log").open("wb") as log:
            words = ["setpriv", "--pdeathsig", "KILL", *command]
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._qmp = self._connect()
        self._control = control.Control(self._control_socket)

    def wait_ready(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until the guest's control program answers, after a start or a reset."""
        try:
            self.boot_id = self.guest.wait_ready(timeout, not_boot=self.boot_id)
        except control.NoAnswer as error:
            raise RuntimeError(f"the guest does not answer; it said:\n{self.log[-4000:]}") from error

    def reset(self) -> None:
        """The reset button. The same QEMU process goes on; the guest has booted again when this returns."""
        self.qmp("system_reset")
        self.wait_ready()

    def power_off(self) -> None:
        """The guest shuts down in good order, and QEMU ends."""
        with contextlib.suppress(control.NoAnswer):  # it has no time left to answer
            self.guest.run("umount -a -r; sync; poweroff -f", timeout=10)
        self._wait_exit()

    def quit(self) -> None:
        """End QEMU by its monitor: in good order for QEMU, a power cut for the guest."""
        self.qmp("quit")
        self._wait_exit()

    def terminate(self) -> None:
        """SIGTERM to QEMU."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._wait_exit()

    def kill(self) -> None:
        """SIGKILL to QEMU."""
        if self._process is not None:
            self._process.kill()
            self._wait_exit()

    def restart(self) -> None:
        """A new QEMU process on the same disks; an old one that still runs is ended by ``quit``."""
        if self.running:
            self.quit()
        self.start()
        self.wait_ready()

    def adopt(self) -> None:
        """Somebody started it again, in a QEMU process that is nobody's here. It is ended with this one."""
        self._disconnect()
        self._qmp = qmp_client.Qmp(self._test_qmp_socket)
        self._process = _Adopted(self._qmp.peer_pid)
        self._control = control.Control(self._control_socket)

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(OSError), contextlib.closing(qmp_client.Qmp(self._test_qmp_socket)) as stranger:
            os.kill(stranger.peer_pid, signal.SIGKILL)  # started by somebody, and not adopted
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- how

    def _command(self) -> list[str]:
        arguments = [word for disk in self.disks for word in _disk_arguments(disk)]
        return [*self._machine(), *arguments, *self.extra]

    def _machine(self) -> list[str]:
        """Without disks."""
        image = guest.build()
        memory, cpus, machine = self._size
        return [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", f"{machine},accel={ACCELERATOR}", "-cpu", CPU, "-smp", str(cpus), "-m", str(memory)),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", self._kernel_words),
            *("-qmp", f"unix:{self._test_qmp_socket},server=on,wait=off"),
            *("-chardev", f"file,id=console,path={self._folder / 'console.log'}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci,id=serial"),
            *self._port("control", self._control_socket, "org.headstart.test.0"),
            *self._for_the_product(),
        ]

    def _for_the_product(self) -> list[str]:
        """The options by which it is backed up."""
        return [
            *("-qmp", f"unix:{self.qmp_socket},server=on,wait=off"),
            *self._port("qga", self.qga_socket, "org.qemu.guest_agent.0"),
            *self._port("agent", self.agent_socket, "org.headstart.agent.0"),
        ]

    @staticmethod
    def _port(name: str, path: Path, port: str) -> list[str]:
        return [
            *("-chardev", f"socket,id=char-{name},path={path},server=on,wait=off"),
            *("-device", f"virtserialport,id=port-{name},chardev=char-{name},name={port}"),
        ]

    def _save_booted(self, target: Path) -> None:
        memory, cpus, machine = self._size
        with contextlib.closing(Vm((), memory_mib=memory, cpus=cpus, machine=machine, boots=True)) as vm:
            vm._kernel_words = f"{KERNEL_COMMAND_LINE} {WITHOUT_DISKS}"
            vm.start()
            vm._wait_idle()
            vm.qmp("migrate-set-parameters", max_bandwidth=1 << 40)
            vm.qmp("migrate", uri=f"exec:cat >{target}")
            vm._wait(lambda: vm.qmp("query-migrate")["status"] == "completed")

    def _wait_idle(self) -> None:
        """All that starts with the guest has started."""

        def idle() -> bool:
            before, after = (self._idle_seconds() for _ in range(2))
            return after - before > 0.7

        self._wait(idle)

    def _idle_seconds(self) -> float:
        time.sleep(1.0)
        return float(self.guest.run("cat /proc/uptime", timeout=BOOT_TIMEOUT).output.split()[1])

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"the guest does not boot:\n{self.log}"
            time.sleep(0.01)

    def _connect(self) -> qmp_client.Qmp:
        deadline = time.monotonic() + EXIT_TIMEOUT
        while True:
            try:
                return qmp_client.Qmp(self._test_qmp_socket)
            except (FileNotFoundError, ConnectionError):
                if not self.running or time.monotonic() > deadline:
                    raise RuntimeError(f"QEMU did not start:\n{self.log}") from None
                time.sleep(0.01)

    def _wait_exit(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(EXIT_TIMEOUT)
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None


class _Adopted:
    """As much of ``Popen`` as is needed of a process that is no child of this one, or was let go of."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return 0
        return 0 if state in "ZX" else None

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _file(disk: disks.Disk) -> Path:
    """What a link leads to now: an overlay of ours is started from by its own name."""
    return disk.path.resolve() if disk.path.is_symlink() else disk.path


def _disk_arguments(disk: disks.Disk) -> Iterator[str]:
    if disk.blockdev:
        yield from _blockdev(disk)
    else:
        yield "-drive"
        read_only = "on" if disk.read_only else "off"
        yield (f"if=none,id={disk.name},file={_file(disk)},format={disk.format},discard=unmap,readonly={read_only}")
    iothread = ""
    if disk.iothread:
        yield from ("-object", f"iothread,id=thread-{disk.name}")
        iothread = f",iothread=thread-{disk.name}"
    common = f"id={disk.device_id},drive={disk.name},serial={disk.serial_number}"
    if disk.interface == "virtio-blk":
        yield from ("-device", f"virtio-blk-pci,{common}{iothread}")
    else:
        yield from ("-device", f"virtio-scsi-pci,id=bus-{disk.name}{iothread}")
        yield from ("-device", f"scsi-hd,bus=bus-{disk.name}.0,{common}")


def _blockdev(disk: disks.Disk) -> Iterator[str]:
    file = f"file-{disk.name}"
    common = {"read-only": disk.read_only, "discard": "unmap"}
    nodes = [
        {"driver": "file", "filename": str(_file(disk)), "node-name": file, **common},
        {"driver": disk.format, "file": file, "node-name": disk.name, **common},
    ]
    for node in nodes:
        yield from ("-blockdev", json.dumps(node))
