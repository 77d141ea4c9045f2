"""agentd over TCP, as a process on this machine: who may talk to it, and that nobody else can keep it busy."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart import errors
from headstart.agentd import frames, messages, release, sockets
from headstart.guest import keys, links, package, renewal
from headstart.guest.channel import Channel, Lost
from tests.guest.releases import variant
from tests.kit.ports import free_port
from tests.kit.vm import Vm


@dataclass
class Served:
    """A running agentd."""

    address: str
    port: int
    keys: Path
    process: subprocess.Popen[bytes]

    def channel(self) -> Channel:
        address = links.parse(self.address)
        return Channel(address.connect(), secret=address.secret)

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def shaken(self) -> ssl.SSLSocket:
        link = links.connect(self.address)
        assert isinstance(link, ssl.SSLSocket)
        link.settimeout(10)
        return link


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[bytes], Served]]:
    with contextlib.ExitStack() as stack:

        def start(content: bytes) -> Served:
            port, folder, file = free_port(), tmp_path / "keys", tmp_path / "agentd"
            keys.make(folder)
            file.write_bytes(content)
            command: Sequence[str | Path] = ("--tcp", f"127.0.0.1:{port}", "--keys", folder)
            process = stack.enter_context(subprocess.Popen([sys.executable, "-I", "-S", str(file), *map(str, command)]))
            stack.callback(process.kill)
            served = Served(f"tcp:127.0.0.1:{port},keys={folder}", port, folder, process)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), served.plain():
                    return served
                time.sleep(0.05)
            raise AssertionError("it does not listen")

        yield start


@pytest.fixture
def served(serve: Callable[[bytes], Served]) -> Served:
    return serve(package.build())


def ended(link: socket.socket, seconds: float) -> float:
    """How long it took until the other end closed it, without having said anything."""
    link.settimeout(seconds)
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        assert link.recv(1) == b""
    return time.monotonic() - began


def test_who_has_the_keys_is_served(served: Served) -> None:
    with served.channel() as agent:
        assert agent.welcome["sources"] == package.digest(package.sources())
        assert set(agent.ask("map")) >= {"disks", "volumes", "mounts"}
    with served.channel() as agent:
        assert agent.welcome["pid"] == served.process.pid


def test_who_has_another_secret_is_cut_off(served: Served) -> None:
    (served.keys / links.SECRET_FILE).write_text("0" * 64)
    with served.shaken() as link:
        link.sendall(hello({"secret": "0" * 64}))
        assert ended(link, 3) < 2
    with pytest.raises(Lost):
        served.channel()


@pytest.mark.parametrize("told", [{}, {"secret": None}, {"secret": ["x"]}, {"secret": ""}, {"secret": "\udc80ä"}])
def test_who_tells_no_secret_is_cut_off(served: Served, told: dict[str, object]) -> None:
    with served.shaken() as link:
        link.sendall(hello(told))
        assert ended(link, 3) < 2


def hello(told: dict[str, object], session: int = 7) -> bytes:
    return frames.encode(messages.HELLO, session, 1, messages.pack_json(told))


def test_a_secret_is_needed_for_every_session(served: Served) -> None:
    secret = links.parse(served.address).secret
    with served.shaken() as link:
        link.sendall(hello({"secret": secret}))
        decoder = frames.Decoder(frames.FROM_GUEST)
        found: list[frames.Frame] = []
        while not found:
            found += decoder.feed(link.recv(65536))
        assert (found[0].kind, found[0].session) == (messages.WELCOME, 7)
        link.sendall(hello({}, 8) + frames.encode(messages.ASK, 8, 2, messages.pack_json({"do": "map"})))
        found.clear()
        while not found:
            found += decoder.feed(link.recv(65536))
        assert found[0].kind == messages.REFUSAL
        assert messages.unpack_json(found[0].payload)["code"] == messages.STRANGE


def test_an_agent_with_another_certificate_is_not_talked_to(served: Served, tmp_path: Path) -> None:
    keys.make(tmp_path / "other")
    with pytest.raises(errors.Unreachable, match=r"another key than .*/other/host\.pem"):
        links.connect(f"tcp:127.0.0.1:{served.port},keys={tmp_path / 'other'}")


def test_strangers_are_ended_and_do_not_disturb(served: Served) -> None:
    with served.channel() as agent, served.plain() as silent, served.shaken() as mute, served.shaken() as chatty:
        chatty.sendall(bytes(frames.TO_GUEST))
        began = time.monotonic()
        while time.monotonic() < began + 2:
            assert agent.ask("map", seconds=1)
        with served.plain() as babbler:
            babbler.sendall(b"GET / HTTP/1.0\r\n\r\n")
            babbler.settimeout(2)
            with contextlib.suppress(ConnectionResetError):
                while babbler.recv(1024):  # a TLS alert
                    pass
        for link in (silent, mute, chatty):
            ended(link, sockets.ADMISSION_SECONDS + 3)
        assert sockets.ADMISSION_SECONDS - 1 < time.monotonic() - began < sockets.ADMISSION_SECONDS + 3
        assert agent.ask("map", seconds=1)


def test_too_much_before_a_hello(served: Served) -> None:
    with served.shaken() as link:
        with contextlib.suppress(OSError):
            link.sendall(bytes(1 << 20))
        with contextlib.suppress(OSError):
            assert ended(link, 3) < 2


def test_many_strangers_do_not_keep_the_host_out(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3 * sockets.WAITING):
            stack.enter_context(served.plain())
        with served.channel() as agent:
            assert agent.ask("map", seconds=1)


def test_the_last_host_counts(served: Served) -> None:
    with served.channel() as older:
        older.ask("map")
        with served.channel() as newer:
            assert newer.ask("map")
            with pytest.raises(Lost):
                older.ask("map", seconds=3)
            assert newer.ask("map")


def test_a_host_that_does_not_listen_and_then_does(served: Served) -> None:
    with served.channel() as agent:
        requests = [agent.start("map") for _ in range(3000)]
        time.sleep(0.5)
        for request in requests:
            assert agent.answer(request, 10)["mounts"] is not None


def test_a_host_that_is_killed_is_replaced(served: Served) -> None:
    served.channel()._link.detach()  # never closed
    with served.channel() as agent:
        assert agent.ask("map")


def test_it_is_renewed(serve: Callable[[bytes], Served]) -> None:
    served = serve(package.build(variant(0)))
    address = links.parse(served.address)
    with renewal.open_channel(address.connect, secret=address.secret) as agent:
        assert agent.welcome["release"] == release.RELEASE
        assert agent.welcome["pid"] == served.process.pid


def test_a_dead_host_is_noticed() -> None:
    with socket.socket() as link:
        sockets.keep_alive(link)
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60000


def test_it_ends_when_it_is_told(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize(("cid", "allowed"), [(0, False), (1, False), (2, True), (3, False)])
def test_of_vsock_the_host_alone(cid: int, allowed: bool) -> None:
    assert sockets.is_host((cid, 1024)) is allowed


# -- vsock: a host behind it cannot be had in tests; a program in the guest, which is CID 1 to itself, can

IN_GUEST = "/usr/lib/headstart-agentd"
CLIENT = f"""
import socket, sys
sys.path.insert(0, "{IN_GUEST}")
from headstart.agentd import frames, messages
link = socket.socket(socket.AF_VSOCK)
link.settimeout(30)
link.connect((1, messages.VSOCK_PORT))
decoder = frames.Decoder(frames.FROM_GUEST)
def answer():
    while True:
        data = link.recv(65536)
        if not data:
            return None
        for frame in decoder.feed(data):
            return messages.unpack_json(frame.payload)
try:
    link.sendall(frames.preamble(frames.TO_GUEST) + frames.encode(messages.HELLO, 7, 1, b"{{}}"))
    print("release" in (answer() or ""))
    link.sendall(frames.encode(messages.ASK, 7, 2, messages.pack_json({{"do": "map"}})))
    print(len(answer()["disks"]))
except (OSError, TypeError) as error:
    print("ended")
"""
SERVER = f"""
import sys
sys.path.insert(0, "{IN_GUEST}")
from headstart.agentd import main, sockets
sockets.HOST_CID = int(sys.argv[1])
main.main(["--vsock"])
"""


def vsock_client(vm: Vm, host_cid: int) -> list[str]:
    """What a program in the guest hears from an agent that takes ``host_cid`` for the host."""
    run = vm.guest.run
    for name, text in (("client", CLIENT), ("server", SERVER)):
        run(f"cat > /tmp/{name}.py <<'END'\n{text}\nEND")
    run(f"(python3 -I -S /tmp/server.py {host_cid} > /tmp/log 2>&1 & echo $! > /tmp/pid) > /dev/null 2>&1")
    try:
        deadline = time.monotonic() + 60
        while True:
            said = run("python3 -I -S /tmp/client.py 2>&1", check=False).output
            if "Connection reset" not in said or time.monotonic() > deadline:
                return said.splitlines()
    finally:
        # Until it is gone: the next one's clients must not reach it.
        run("kill $(cat /tmp/pid); while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.1; done; cat /tmp/log")


def test_vsock_refuses_a_program_in_the_guest(module_vm: Vm) -> None:
    assert vsock_client(module_vm, sockets.HOST_CID) == ["False", "ended"]


def test_vsock_serves_the_host(module_vm: Vm) -> None:
    assert vsock_client(module_vm, 1) == ["True", "2"]
