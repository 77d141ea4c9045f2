"""The agent and a service for it come into guests: a Debian by qga and by SSH, and guests that lack what is needed."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.guest import install, keys, links, package, renewal
from headstart.guest.reader import AgentReader
from headstart.guest.shells import QgaShell, Ran, SshShell
from headstart.wire.qga import Qga
from tests.kit import debian, disks
from tests.kit.cli import Cli
from tests.kit.ports import free_port
from tests.kit.vm import Vm
from tests.wire import scripted
from tests.wire.scripted import answer, requests, synchronise

# -- what a guest may lack


class Scripted:
    """A shell in a guest that is asked and put nothing but what a test expects."""

    way = "qga"

    def __init__(self, *answers: Ran) -> None:
        self._answers = list(answers)

    def run(self, script: str, content: bytes = b"") -> Ran:
        return self._answers.pop(0)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *details: object) -> None:
        return None


SOUND = "uid=0\nseen=/usr/bin/python3\npython=/usr/bin/python3\ninit=systemd\n"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("uid=1000\n", "needs root"),
        ("uid=0\ninit=systemd\n", r"which has none\. Install python3"),
        ("uid=0\nseen=/usr/bin/python3\ninit=systemd\n", "'/usr/bin/python3' is too old"),
        ("uid=0\nseen=/p\npython=/p\n", "neither systemd nor OpenRC.*agent build"),
        ("C:\\> \x1b[31m", r"no shell.*> \?\[31m"),
    ],
)
def test_guests_that_lack_something_are_left_as_they_are(told: str, message: str) -> None:
    with pytest.raises(errors.Unsupported, match=message):
        install.install(Scripted(Ran(0, told, "")))
    if "ython" not in message and "agent build" not in message:
        with pytest.raises(errors.Unsupported, match=message):
            install.remove(Scripted(Ran(0, told, "")))


def test_what_is_not_ours_is_not_taken_out() -> None:
    with pytest.raises(errors.Unsupported, match="neither systemd nor OpenRC"):
        install.remove(Scripted(Ran(0, "uid=0\n", "")))
    with pytest.raises(errors.HeadstartError, match="cannot be taken out of the guest: it does not stop"):
        install.remove(Scripted(Ran(0, SOUND, ""), Ran(1, "", "it does not stop\n")))
    told = f"{install.FILE}\nanything\n"
    assert install.remove(Scripted(Ran(0, SOUND, ""), Ran(0, told, ""))) == (install.FILE,)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_what_failed_is_told(step: int) -> None:
    fine = Ran(0, "", "")
    with pytest.raises(errors.HeadstartError, match="No module named 'json'"):
        install.install(
            Scripted(Ran(0, SOUND, ""), *[fine] * step, Ran(1, "", "ImportError: No module named 'json'\n"))
        )


@pytest.mark.parametrize("enabled", [False, None])
def test_a_qga_that_may_not_run_anything(enabled: bool | None) -> None:
    commands = [{"name": "guest-info", "enabled": True}, {"name": "guest-exec-status", "enabled": True}, "nonsense"]
    if enabled is not None:
        commands.append({"name": "guest-exec", "enabled": enabled})

    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)
            else:
                answer(client, {"version": "6.2.0", "supported_commands": commands})

    with scripted.listening(script) as path, pytest.raises(errors.Unsupported, match=r"guest-exec is disabled.*--ssh"):
        QgaShell(Qga(path))


@pytest.mark.parametrize("answers", [{}, {"pid": "one"}, {"pid": 1, "exited": True, "exitcode": "x", "out-data": 5}])
def test_a_qga_that_answers_nonsense(answers: Mapping[str, Any]) -> None:
    enabled = [{"name": name, "enabled": True} for name in ("guest-exec", "guest-exec-status")]

    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)
            else:
                answer(client, {**answers, "supported_commands": enabled})

    with scripted.listening(script) as path, QgaShell(Qga(path)) as shell:
        try:
            assert shell.run("true") == Ran(-1, "", "")
        except errors.Unreachable as error:
            assert "nonsense" in str(error)


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch /tmp/owned"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(errors.Usage):
        SshShell(host)


def test_nobody_at_the_other_end_of_ssh() -> None:
    with SshShell("nobody@localhost.invalid") as shell, pytest.raises(errors.Unreachable, match="without a password"):
        shell.run("true")


def test_the_templates_name_what_is_put_there() -> None:
    for service in install.SERVICES.values():
        text = Path(install.__file__).with_name(service.template).read_text()
        assert text.count("@PYTHON@") == text.count("@FILE@") == 1
        assert "from " not in text


# -- the small guest: no service manager, or one that only says that it is OpenRC


def test_a_guest_without_a_service_manager(module_vm: Vm) -> None:
    with (
        QgaShell(Qga(module_vm.qga_socket)) as shell,
        pytest.raises(errors.Unsupported, match="neither systemd nor OpenRC"),
    ):
        install.install(shell)
    assert module_vm.guest.run("ls /usr/local", check=False).status != 0


def test_openrc(module_vm: Vm) -> None:
    for name in ("rc-service", "rc-update"):
        text = f'#!/bin/sh\\necho {name} "$@" >> /tmp/rc\\n[ "$2" != status ]\\n'
        module_vm.guest.run(f"printf '{text}' > /usr/sbin/{name}; chmod 755 /usr/sbin/{name}; mkdir -p /etc/init.d")
    with QgaShell(Qga(module_vm.qga_socket)) as shell:
        done = install.install(shell)
        assert (done.init, done.python) == ("openrc", "/usr/bin/python3")
        script = shell.run("cat /etc/init.d/headstart-agentd").output
    assert module_vm.guest.run("cat /tmp/rc").output.splitlines() == [
        "rc-update add headstart-agentd default",
        "rc-service headstart-agentd restart",
    ]
    assert f'command_args="-I -S {install.FILE}"' in script
    ran = module_vm.guest.run(f"sh -n /etc/init.d/headstart-agentd && python3 -I -S {install.FILE} --check")
    assert ran.output.startswith("headstart-agentd ")
    with QgaShell(Qga(module_vm.qga_socket)) as shell:
        shell.run("mv /etc/init.d/headstart-agentd /etc/mine; echo theirs > /etc/init.d/headstart-agentd")
        with pytest.raises(errors.HeadstartError, match="was not written by headstart agent install"):
            install.remove(shell)
        shell.run(f"mv /etc/mine /etc/init.d/headstart-agentd; touch /tmp/rc {install.FILE}.new; : > /tmp/rc")
        assert install.remove(shell) == ("/etc/init.d/headstart-agentd", install.FILE)
        assert install.remove(shell) == ()
    assert module_vm.guest.run("cat /tmp/rc").output.splitlines() == [
        "rc-service headstart-agentd stop",
        "rc-update delete headstart-agentd default",
        "rc-service headstart-agentd status",
    ]
    assert module_vm.guest.run("ls /etc/init.d /usr/local/lib").output.split() == ["/etc/init.d:", "/usr/local/lib:"]


# -- Debian

DATA_SIZE = 64 << 20


@pytest.fixture(scope="module")
def port() -> int:
    """Of this machine, behind which is the guest's sshd."""
    return free_port()


@pytest.fixture(scope="module")
def agent_port() -> int:
    """The same for an agent on port 4000."""
    return free_port()


@pytest.fixture(scope="module")
def debian_vm(tmp_path_factory: pytest.TempPathFactory, port: int, agent_port: int) -> Iterator[debian.DebianVm]:
    if debian.missing():
        pytest.skip(debian.missing())
    network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22,hostfwd=tcp:127.0.0.1:{agent_port}-:4000"
    extra = ("-netdev", network, "-device", "virtio-net-pci,netdev=net")
    folder = tmp_path_factory.mktemp("debian")
    data = disks.Disk(disks.make_filled(folder / "data.raw", DATA_SIZE, "raw"), "raw", "data")
    vm = debian.DebianVm(folder, [data], extra=extra)
    with vm:
        yield vm


def answers(vm: Vm) -> None:
    renewal.await_ours(links.parse(str(vm.agent_socket)).connect, seconds=60)


@pytest.mark.vm
@pytest.mark.timeout(600)  # with the making of the image
def test_through_qga_and_again_after_a_reboot(debian_vm: debian.DebianVm, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    sockets = ("--qmp", debian_vm.qmp_socket, "--qga", debian_vm.qga_socket, "--agent", debian_vm.agent_socket)
    cli.run("vm", "add", "web", *sockets)
    for _ in range(2):
        done = cli.run("agent", "install", "web").json
        assert (done["way"], done["init"], done["python"]) == ("qga", "systemd", "/usr/bin/python3")
        assert done["answers"] is True
    debian_vm.reset()
    answers(debian_vm)
    with qga_shell(debian_vm) as shell:
        assert shell.run("systemctl is-enabled headstart-agentd").output == "enabled\n"
        assert shell.run("ls /usr/local/lib/headstart").output == "agentd\n"
        shell.run("mkdir /etc/systemd/system/headstart-agentd.service.d")
    done = cli.run("agent", "remove", "web")
    unit = "/etc/systemd/system/headstart-agentd.service"
    assert done.json == {
        "name": "web",
        "way": "qga",
        "removed": [unit, f"{unit}.d", install.FILE],
        "channel": str(debian_vm.agent_socket),
    }
    assert "still looks for it" in done.stderr
    assert cli.run("agent", "remove", "web").json["removed"] == []
    with qga_shell(debian_vm) as shell:
        assert "could not be found" in shell.run("systemctl status headstart-agentd").complaint
        left = "pgrep -f '[h]eadstart/agentd'; ls -d /usr/local/lib/headstart /etc/systemd/system/headstart-agentd*"
        assert shell.run(left).output == ""
    assert any("stays there" in note for note in cli.run("vm", "remove", "web").json["notes"])


def qga_shell(vm: debian.DebianVm) -> QgaShell:
    """After a boot qga may come up later than our agent."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return QgaShell(Qga(vm.qga_socket))
        except errors.Unreachable:
            if time.monotonic() > deadline:
                raise


def logins(folder: Path, vm: Vm, port: int) -> Mapping[str, str]:
    """Users who may log in: root, ``admin`` who may become root, ``plain`` who may not. The environment for it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    (folder / "config").write_text(
        f"Host guest\nHostName 127.0.0.1\nPort {port}\nIdentityFile {folder}/key\nUserKnownHostsFile {folder}/known\n"
        "StrictHostKeyChecking accept-new\n"
    )
    (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/config "$@"\n')
    (folder / "ssh").chmod(0o755)
    with QgaShell(Qga(vm.qga_socket)) as shell:
        done = shell.run(
            "set -e; cat > /tmp/key; for each in root admin plain; do"
            " [ $each = root ] || useradd -m $each; home=$(getent passwd $each | cut -d: -f6);"
            " install -d -m 700 -o $each $home/.ssh; install -m 600 -o $each /tmp/key $home/.ssh/authorized_keys; done;"
            " echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin; chmod 440 /etc/sudoers.d/admin;"
            " systemctl start ssh; systemctl is-active ssh",
            (folder / "key.pub").read_bytes(),
        )
    assert done.output.endswith("active\n"), done
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.mark.vm
def test_through_ssh(debian_vm: debian.DebianVm, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in logins(tmp_path, debian_vm, port).items():
        monkeypatch.setenv(name, value)
    for user in ("root", "admin"):
        with SshShell(f"{user}@guest") as shell:
            done = install.install(shell)
        assert (done.way, done.init) == ("ssh", "systemd")
        answers(debian_vm)
    with SshShell("plain@guest") as shell, pytest.raises(errors.Unsupported, match="needs root"):
        install.install(shell)
    with SshShell("stranger@guest") as shell, pytest.raises(errors.Unreachable, match="Permission denied"):
        install.install(shell)


@pytest.mark.vm
def test_a_disk_is_read_over_tcp(debian_vm: debian.DebianVm, tmp_path: Path, agent_port: int) -> None:
    keys.make(tmp_path / "keys")
    with QgaShell(Qga(debian_vm.qga_socket)) as shell:
        shell.run("cat > /root/agentd", package.build())
        for name in keys.FOR_GUEST:
            shell.run(f"mkdir -p /root/keys; cat > /root/keys/{name}", (tmp_path / "keys" / name).read_bytes())
        command = "python3 /root/agentd --tcp 0.0.0.0:4000 --keys /root/keys"
        assert shell.run(f"systemd-run --unit agent-tcp {command}").status == 0
    address = links.parse(f"tcp:127.0.0.1:{agent_port},keys={tmp_path / 'keys'}")
    renewal.await_ours(address.connect, secret=address.secret, seconds=60)
    found = hashlib.sha256()
    with renewal.open_channel(address.connect, secret=address.secret, seconds=20) as channel:
        for piece in AgentReader(channel, {"disk": "vdb"}, DATA_SIZE).read([Extent(0, DATA_SIZE)]):
            found.update(bytes(piece.extent.length) if piece.data is None else piece.data)
            piece.release()
    assert found.hexdigest() == hashlib.sha256(debian_vm.disk("data").path.read_bytes()).hexdigest()


@pytest.mark.vm
def test_a_python_that_lacks_modules_is_noticed_before_anything_is_started(debian_vm: debian.DebianVm) -> None:
    with QgaShell(Qga(debian_vm.qga_socket)) as shell:
        shell.run("rm -rf /usr/local/lib/headstart; mv /usr/lib/python3.11/json /usr/lib/python3.11/json.away")
        with pytest.raises(errors.HeadstartError, match="No module named 'json'"):
            install.install(shell)
        assert "agentd\n" not in shell.run("ls /usr/local/lib/headstart").output
        shell.run("mv /usr/lib/python3.11/json.away /usr/lib/python3.11/json")
        shell.run("for each in /usr/bin/python3*; do mv $each $each.away; done")
        with pytest.raises(errors.Unsupported, match="which has none"):
            install.install(shell)
