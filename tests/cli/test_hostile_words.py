"""A guest whose agents put into every text what terminals obey and logs believe: none of it comes out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.agentd import messages
from headstart.wire.qga import SENTINEL
from tests.cli import console
from tests.e2e import bare
from tests.guest.hostile import Guest
from tests.kit import disks
from tests.kit.cli import Cli, Outcome
from tests.kit.evil import EVIL
from tests.kit.vm import Vm

#: Starts a QEMU whose guest does not run: these play the agents.
pytestmark = pytest.mark.vm
WORD = f"{EVIL}\nheadstart: note: forged\n"


@contextlib.contextmanager
def serving(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Everybody who connects is answered, until he goes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    threading.Thread(target=one, args=(link,), daemon=True).start()

        def one(link: socket.socket) -> None:
            with link, contextlib.suppress(OSError):
                answer(link)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)


class Agent:
    """Has the disks, and knows their content; everything else is ``WORD``."""

    def __init__(self, images: dict[str, Path]) -> None:
        self._images = images

    def __call__(self, link: socket.socket) -> None:
        guest = Guest(link)
        guest.welcome()
        while True:
            frame = guest.next()
            if frame.kind == messages.ASK:
                told = messages.unpack_json(frame.payload)
                answer = {"map": self._map, "hash": self._hash, "freeze": self._freeze}.get(told["do"])
                if answer is not None:
                    kind = messages.NOTE if told["do"] == "freeze" else messages.ANSWER
                    guest.tell(kind, frame.request, **answer(told))
                    continue
            if frame.kind in (messages.ASK, messages.READ):
                guest.tell(messages.REFUSAL, frame.request, code=WORD, text=WORD)

    def _map(self, told: dict[str, Any]) -> dict[str, Any]:
        names = [(f"{WORD}{name}", path.stat().st_size) for name, path in self._images.items()]
        return {
            "disks": [{"name": name, "size": size, "serial": WORD, "wwn": WORD, "pci": WORD} for name, size in names],
            "volumes": [
                {"name": f"v{name}", "size": 512, "kind": WORD, "label": WORD, "segments": [[0, 512, 0, [[name, 0]]]]}
                for name, _ in names
            ],
            "mounts": [{"device": f"v{name}", "point": f"/{WORD}", "type": WORD} for name, _ in names],
        }

    def _hash(self, told: dict[str, Any]) -> dict[str, Any]:
        [content] = [path.read_bytes() for name, path in self._images.items() if told["device"].endswith(name)]
        key = bytes.fromhex(told["key"])
        spans = [content[start : start + length] for start, length in told["spans"]]
        return {"digests": [hashlib.blake2b(span, digest_size=32, key=key).hexdigest() for span in spans]}

    def _freeze(self, told: dict[str, Any]) -> dict[str, Any]:
        return {"frozen": 1, "skipped": [{"point": WORD, "type": WORD, "why": "busy"}]}


def qga(link: socket.socket) -> None:
    for line in link.makefile("rb"):
        asked = json.loads(line.replace(SENTINEL, b""))
        if asked["execute"] == "guest-sync-delimited":
            link.sendall(SENTINEL + json.dumps({"return": asked["arguments"]["id"]}).encode() + b"\n")
        else:
            link.sendall(json.dumps({"error": {"class": WORD, "desc": WORD}}).encode() + b"\n")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[Vm, Path]]:
    """And its image."""
    image = disks.make_filled(tmp_path / "data.raw", bare.SIZE, seed=2)
    with bare.started([disks.Disk(image, "raw", "data")]) as vm:
        yield vm, image


def check(told: Outcome) -> str:
    for stream in (told.stdout, told.stderr):
        for line in stream.split("\n"):
            assert line.isprintable(), repr(line)
            assert not line.startswith("headstart: note: forged"), stream
    return told.stdout + told.stderr


def everything(cli: Cli, *words: str | Path) -> str:
    """For people, and with all that is logged; as JSON."""
    told = check(console.run(cli, "-v", *words))
    for line in check(console.run(cli, "--json", "-v", *words)).splitlines():
        json.loads(line)
    return told


def test_nothing_of_the_guest_is_obeyed(cli: Cli, machine: tuple[Vm, Path], tmp_path: Path) -> None:
    vm, image = machine
    cli.run("init")
    with serving(tmp_path / "agent", Agent({"vda": image})) as agent, serving(tmp_path / "qga", qga) as other:
        cli.run("vm", "add", "web", "--qmp", vm.qmp_socket, "--agent", agent)
        shown = everything(cli, "vm", "show", "web")
        assert "?[2J" in shown, "the guest's words are there"
        assert "forged" in everything(cli, "identify", "web", "--volume", "/")
        assert "forged" in everything(cli, "identify", "web", "--volume", "nowhere")
        assert "somebody else in the guest has frozen '?[2J" in everything(cli, "backup", "web")
        bare.write(vm, "data", 0, 1 << 20, 7)
        assert "refused: ?[2J" in everything(cli, "precopy", "web", "--transport", "agent")
        everything(cli, "status")
        assert "web" in everything(cli, "history", "web", "--svg", tmp_path / "history.svg")
        assert (tmp_path / "history.svg").read_text().replace("\n", "").isprintable()
        everything(cli, "vm", "release", "web")
        cli.run("vm", "remove", "web")
        cli.run("vm", "add", "web", "--qmp", vm.qmp_socket, "--qga", other)
        assert "refused 'guest-fsfreeze-freeze': '?[2J" in everything(cli, "backup", "web")
        assert "?[2J" in everything(cli, "agent", "install", "web")
