"""The errors of the first hour, each one brought about: what is said is what ``docs/start.md`` shows of it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import libvirt
import pytest

from headstart import errors, repository
from headstart.hypervisor.libvirt import jobs, place
from headstart.state.journal import Journal
from headstart.state.values import Vm
from headstart.store.local import LocalStore
from headstart.units import KIB, MIB
from headstart.wire.libvirt import Domain, Failed
from tests.cli import console
from tests.hypervisor.qemu import bare
from tests.kit import disks, places, stores
from tests.kit.cli import ROOT, Cli, Outcome
from tests.kit.words import shown
from tests.wire import scripted
from tests.wire.scripted import answer, requests, synchronise

#: Starts a QEMU, if none that boots.
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="files and sockets of other users are made by root"),
]

ROW = re.compile(r"^\| `(.+?)` \| (\d+) \|", re.MULTILINE)
#: The status by what is said.
ROWS: Mapping[str, int] = {said: int(status) for said, status in ROW.findall((ROOT / "docs" / "start.md").read_text())}

#: Root without its powers: what is closed to others is closed to it.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
NOBODY = 65534


class Hour:
    """An installation in a folder, with a repository and a QEMU that it has met."""

    def __init__(self, folder: Path, machine: bare.Bare) -> None:
        self.folder = folder
        self.machine = machine
        self.cli = Cli(folder)
        repository.create(LocalStore(self.cli.repository), stores.PASSWORD, cost=stores.QUICK).close()

    def run(self, *words: str | Path, **environment: str | Path) -> Outcome:
        return console.inside(self.cli, *words, environment={name: str(each) for name, each in environment.items()})

    def add(self, monitor: Path | None = None, qga: Path | None = None, agent: str = "") -> None:
        """As ``vm add`` would, without a look at it."""
        with Journal.open(self.cli.state) as journal:
            journal.add_vm(Vm("web", monitor or self.machine.monitor, agent, qga))

    def powerless(self, *words: str | Path) -> Outcome:
        command = [*POWERLESS, sys.executable, "-m", "headstart", *map(str, words)]
        done = subprocess.run(
            command, env=self.cli.environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def nobodys(self, path: Path, mode: int = 0o700) -> Path:
        os.chown(path, NOBODY, NOBODY)
        path.chmod(mode)
        return path

    def socket_of_nobody(self) -> Path:
        path = self.folder / "closed"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
        return self.nobodys(path)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bare.Bare]:
    image = disks.make_filled(tmp_path_factory.mktemp("disk") / "web.qcow2", 12 * MIB, "qcow2")
    with bare.running(*bare_options(image)) as running:
        yield running


def bare_options(image: Path) -> list[str]:
    return ["-drive", f"file={image},if=virtio", "-S"]


@pytest.fixture
def hour(tmp_path: Path, machine: bare.Bare) -> Iterator[Hour]:
    made = Hour(tmp_path, machine)
    yield made
    for each in json.loads(made.run("vm", "list", "--json").stdout)["vms"]:
        made.run("vm", "remove", each["name"])


# -- one after the other


def missing_monitor(hour: Hour) -> Outcome:
    return hour.run("vm", "add", "web", "--qmp", "/nowhere/qmp")


def left_monitor(hour: Hour) -> Outcome:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(hour.folder / "qmp"))
    return hour.run("vm", "add", "web", "--qmp", hour.folder / "qmp")


def closed_monitor(hour: Hour) -> Outcome:
    return hour.powerless("vm", "add", "web", "--qmp", hour.socket_of_nobody())


def taken_monitor(hour: Hour) -> Outcome:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(hour.machine.monitor))
        return hour.run("vm", "add", "web", "--qmp", hour.machine.monitor)


def old_qemu(hour: Hour) -> Outcome:
    version = {"qemu": {"micro": 0, "minor": 2, "major": 5}, "package": "Debian 1:5.2+dfsg-11"}

    def script(client: socket.socket) -> None:
        client.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\n")
        while data := client.recv(65536):
            request = json.loads(data)
            found = version if request["execute"] == "query-version" else {}
            named = {"id": request["id"]} if "id" in request else {}
            client.sendall(json.dumps({"return": found, **named}).encode() + b"\n")

    with scripted.listening(script) as path:
        return hour.run("vm", "add", "web", "--qmp", path)


@contextlib.contextmanager
def qemu_of_nobody(hour: Hour) -> Iterator[Path]:
    """It is the VM, its monitor open to all. Gives a folder that is open to all."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as made:
        folder = hour.nobodys(Path(made), 0o777)
        image = hour.nobodys(disks.make_empty(folder / "image", MIB, "qcow2"))
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command += ["qemu-system-x86_64", "-display", "none", "-nodefaults", "-m", "32", "-S", "-daemonize"]
        command += ["-drive", f"file={image},if=virtio", "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
        subprocess.run([*command, "-pidfile", folder / "pid"], check=True)
        try:
            (folder / "qmp").chmod(0o777)
            hour.add(folder / "qmp")
            yield folder
            hour.run("vm", "remove", "web")
        finally:
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


def foreign_qemu(hour: Hour) -> Outcome:
    with qemu_of_nobody(hour) as folder:
        return hour.run("precopy", "web", "--scratch", folder / "ours")


def foreign_export(hour: Hour) -> Outcome:
    with qemu_of_nobody(hour) as folder:
        return hour.powerless("precopy", "web", "--scratch", folder)


def missing_qga(hour: Hour) -> Outcome:
    hour.add(qga=Path("/nowhere/qga"))
    return hour.run("agent", "install", "web")


def closed_qga(hour: Hour) -> Outcome:
    hour.add(qga=hour.socket_of_nobody())
    return hour.powerless("agent", "install", "web")


def silent_qga(hour: Hour) -> Outcome:
    with scripted.listening(scripted.silence) as path:
        hour.add(qga=path)
        return hour.run("agent", "install", "web")


def guest(enabled: bool, says: str = "") -> Callable[[socket.socket], None]:
    """A qga. ``says``: whatever is run in the guest."""
    commands = [{"name": name, "enabled": enabled} for name in ("guest-exec", "guest-exec-status")]
    output = base64.b64encode(says.encode()).decode()
    answers: Mapping[str, object] = {
        "guest-info": {"version": "7.2.0", "supported_commands": commands},
        "guest-exec": {"pid": 1},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": output},
    }

    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)
            else:
                answer(client, answers[str(request["execute"])])

    return script


def qga_that_runs_nothing(hour: Hour) -> Outcome:
    with scripted.listening(guest(enabled=False)) as path:
        hour.add(qga=path)
        return hour.run("agent", "install", "web")


def no_python(hour: Hour) -> Outcome:
    with scripted.listening(guest(enabled=True, says="uid=0\ninit=systemd\n")) as path:
        hour.add(qga=path)
        return hour.run("agent", "install", "web")


def no_way_in(hour: Hour) -> Outcome:
    hour.add()
    return hour.run("agent", "install", "web")


def no_port(hour: Hour) -> Outcome:
    hour.add(agent="/nowhere/agent")
    return hour.run("precopy", "web", "--transport", "agent")


def no_agent(hour: Hour) -> Outcome:
    with scripted.listening(scripted.silence) as path:
        hour.add(agent=str(path))
        return hour.run("precopy", "web", "--transport", "agent")


def unnamed_repository(hour: Hour) -> Outcome:
    return hour.run("snapshots", HEADSTART_REPOSITORY="")


def no_repository(hour: Hour) -> Outcome:
    return hour.run("snapshots", HEADSTART_REPOSITORY=hour.folder)


def not_empty(hour: Hour) -> Outcome:
    return hour.run("init", HEADSTART_REPOSITORY=hour.cli.repository.parent)


def closed_repository(hour: Hour) -> Outcome:
    hour.nobodys(hour.cli.repository)
    return hour.powerless("snapshots")


def full_repository(hour: Hour) -> Outcome:
    hour.add()
    with places.small(hour.cli.repository, 2 * MIB):
        return hour.run("precopy", "web")


def wrong_password(hour: Hour) -> Outcome:
    return hour.run("snapshots", HEADSTART_PASSWORD="wrong")


def no_password(hour: Hour) -> Outcome:
    return hour.run("snapshots", HEADSTART_PASSWORD="")


def no_password_file(hour: Hour) -> Outcome:
    return hour.run("snapshots", HEADSTART_PASSWORD="", HEADSTART_PASSWORD_FILE="/nowhere")


def unknown_vm(hour: Hour) -> Outcome:
    return hour.run("backup", "wbe")


def closed_state(hour: Hour) -> Outcome:
    hour.cli.state.mkdir()
    hour.nobodys(hour.cli.state)
    return hour.powerless("vm", "list")


def closed_scratch(hour: Hour) -> Outcome:
    hour.add()
    closed = hour.folder / "closed"
    closed.mkdir()
    hour.nobodys(closed)
    return hour.powerless("precopy", "web", "--scratch", closed / "scratch")


def full_scratch(hour: Hour) -> Outcome:
    hour.add()
    with places.small(hour.cli.scratch, 512 * KIB):
        return hour.run("backup", "web")


def no_libvirt(hour: Hour) -> Outcome:
    return hour.run("vm", "discover", "qemu+unix:///system?socket=/nowhere")


def closed_libvirt(hour: Hour) -> Outcome:
    return hour.powerless("vm", "discover", f"qemu+unix:///system?socket={hour.socket_of_nobody()}")


def raised(doing: Callable[[], object]) -> Outcome:
    """As the command line would tell it."""
    with pytest.raises(errors.HeadstartError) as found:
        doing()
    return Outcome(errors.exit_code(found.value), "", f"headstart: {found.value}\n")


def unknown_domain(hour: Hour) -> Outcome:
    with mock.patch.object(libvirt.virConnect, "setKeepAlive"):  # libvirt's own test driver has none
        return raised(lambda: Domain("test:///default", "wbe"))


def closed_to_qemu(hour: Hour) -> Outcome:
    folder = hour.folder / "closed" / "scratch"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)
    hour.folder.chmod(0o755)
    return raised(lambda: place.give(folder, (NOBODY, NOBODY)))


def confined_qemu(hour: Hour) -> Outcome:
    refused = Failed("libvirt refused: Failed to bind socket to /x/nbd: Permission denied.", 1)
    return raised(lambda: _raise(jobs.explained(refused, hour.cli.scratch)))


def _raise(error: Exception) -> None:
    raise error


def no_bindings(hour: Hour) -> Outcome:
    program = console.patched("import sys; sys.modules['libvirt'] = None")
    return console.run(hour.cli, "vm", "discover", "qemu:///system", program=program)


def no_libnbd(hour: Hour) -> Outcome:
    return console.run(hour.cli, "backup", "web", program=console.patched("import sys; sys.modules['nbd'] = None"))


CASES: Mapping[str, Callable[[Hour], Outcome]] = {
    "There is no QMP socket": missing_monitor,
    "Nobody listens on the QMP socket": left_monitor,
    "The QMP socket": closed_monitor,
    "QEMU's monitor at": taken_monitor,
    "QEMU is ..., and Headstart needs": old_qemu,
    "QEMU cannot open a socket": foreign_qemu,
    "The NBD export": foreign_export,
    "Nobody listens at ... for the guest agent": missing_qga,
    "The socket of the guest agent": closed_qga,
    "The guest agent (qga) at": silent_qga,
    "The guest agent (qga) is not allowed": qga_that_runs_nothing,
    "... was added without --qga": no_way_in,
    "The agent needs Python": no_python,
    "The agent at ... cannot be reached": no_port,
    "The agent in the guest does not answer": no_agent,
    "Name the repository": unnamed_repository,
    "There is no repository": no_repository,
    "... is not empty": not_empty,
    "Could not ... in ...: Permission denied": closed_repository,
    "Could not write ... in ...: No space": full_repository,
    "No key of this repository": wrong_password,
    "A password is needed": no_password,
    "HEADSTART_PASSWORD_FILE": no_password_file,
    "There is no VM": unknown_vm,
    "The state directory": closed_state,
    "The scratch directory": closed_scratch,
    "... may need": full_scratch,
    "libvirt at ... cannot be reached": no_libvirt,
    "libvirt at ... does not let you in": closed_libvirt,
    "libvirt at ... has no domain": unknown_domain,
    "QEMU runs as user": closed_to_qemu,
    "QEMU may not write into": confined_qemu,
    "libnbd's bindings": no_libnbd,
    "Python's bindings of libvirt": no_bindings,
}


def row(begins: str) -> str:
    [found] = [each for each in ROWS if each.startswith(begins)]
    return found


def test_each_row_of_the_page_is_brought_about() -> None:
    assert sorted(map(row, CASES)) == sorted(ROWS)


@pytest.mark.parametrize("begins", CASES)
def test_it_is_said_as_the_page_shows(begins: str, hour: Hour) -> None:
    outcome = CASES[begins](hour)
    said = outcome.stderr.removeprefix("headstart: ")
    assert said != outcome.stderr and "Traceback" not in said
    assert "[Errno" not in said
    assert shown(row(begins), said), said
    assert (outcome.status, outcome.stdout) == (ROWS[row(begins)], "")


def test_a_qga_that_does_not_answer_is_told_when_the_vm_is_added(hour: Hour) -> None:
    hour.add(qga=Path("/nowhere/qga"))
    said = hour.run("vm", "show", "web").stdout
    assert "note: the guest's file systems cannot be frozen by qga: Nobody listens at /nowhere/qga" in said
