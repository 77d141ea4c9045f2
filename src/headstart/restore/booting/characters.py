"""A VM's character devices, each with what is behind it: sockets and files of its own, or nothing.

::

    -chardev socket,id=c,path=/run/web/agent,server=on     -chardev socket,id=c,path=FOLDER/c.sock,server=on,wait=off
    -serial mon:stdio                                      -chardev file,id=x,path=FOLDER/x.log  -serial chardev:x
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headstart import errors, plain
from headstart.restore.booting.commandline import Option, compose, option

#: Options that this is about.
NAMES = frozenset({"chardev", "serial", "parallel", "virtioconsole", "debugcon"})
#: The kernel's limit for the path of a unix socket (``sun_path``), less its zero.
SOCKET_LIMIT = 107
#: Backends that are of one VM alone.
_OWN = frozenset({"null", "vc", "ringbuf", "memory", "pty", "spicevmc", "spiceport", "msmouse", "qemu-vdagent", "hub"})
#: What they keep; else it would be a file of the host that somebody writes to (``logfile``).
_OWN_KEYS = re.compile(r"(backend|id|mux|size|width|height|cols|rows|name|debug|mouse|clipboard|chardevs\.\d+)$")
_LISTENING = ("unix:", "tcp:", "telnet:", "websocket:")


def socket_path(folder: Path, name: str) -> Path:
    """Raises ``Usage`` for one that is too long."""
    path = folder / re.sub(r"[^A-Za-z0-9._-]", "_", name)
    if len(str(path).encode()) > SOCKET_LIMIT:
        raise errors.Usage(f"{path} is too long for a socket ({SOCKET_LIMIT} bytes): take a shorter --name.")
    return path


def ports(options: Sequence[Option]) -> dict[str, str]:
    """By names of virtio-serial ports, the ids of their character devices."""
    devices = [each for each in options if each.name == "device"]
    found = [each for each in devices if each.word("driver").startswith("virtserialport")]
    return {each.word("name"): each.word("chardev") for each in found}


class Characters:
    """``consoles`` are files that get what the guest writes, ``sockets`` those that are listened to, by ids."""

    def __init__(
        self,
        options: Sequence[Option],
        folder: Path,
        note: Callable[[str], None],
        leads_on: Callable[[Option], bool | None],
    ) -> None:
        """``leads_on`` tells of an option that uses a character device whether the VM still has that option; None: it
        leads where it did."""
        self._folder = folder
        self._note = note
        self._binary = set(ports(options).values())
        self._users: dict[str, set[bool | None]] = {}
        for each in options:
            name = _used(each)
            if name:
                self._users.setdefault(name, set()).add(leads_on(each))
        self.consoles: list[Path] = []
        self.sockets: dict[str, Path] = {}

    def adjusted(self, given: Option) -> Iterator[Option]:
        if given.name == "chardev":
            yield from self._chardev(given)
        elif given.name == "debugcon":
            yield from self._debugcon(given)
        else:
            yield from self._port(given)

    def _chardev(self, given: Option) -> Iterator[Option]:
        name, kind, mux = given.word("id"), given.word("backend"), given.word("mux") or None
        users = self._users.get(name, set())
        if users == {False}:
            return  # with all that used it
        if None in users:
            yield given
        elif kind in _OWN:
            kept = {key: value for key, value in given.values.items() if _OWN_KEYS.match(key)}
            yield Option("chardev", compose(kept, "backend"))
        elif kind == "socket" and given.word("server") != "on":
            self._note(f"character device {plain.line(name)} leads to nothing: a program of the host was behind it")
            yield option("chardev", first="null", id=name, mux=mux)
        elif kind == "socket":
            yield self._listening(name, mux)
        elif kind in ("file", "stdio"):
            yield option("chardev", first="file", id=name, path=str(self._console(name)), mux=mux)
        else:
            self._note(f"character device {plain.line(name)} leads to nothing: {plain.line(kind)} is the host's")
            yield option("chardev", first="null", id=name, mux=mux)

    def _listening(self, name: str, mux: str | None = None) -> Option:
        path = self.sockets[name] = socket_path(self._folder, f"{name}.sock")
        log = None if name in self._binary else str(self._console(name))
        return option("chardev", first="socket", id=name, path=str(path), server="on", wait="off", logfile=log, mux=mux)

    def _console(self, name: str) -> Path:
        path = self._folder / re.sub(r"[^A-Za-z0-9._-]", "_", f"{name}.log")
        self.consoles.append(path)
        return path

    def _debugcon(self, given: Option) -> Iterator[Option]:
        """QEMU takes no character device of another name here."""
        if given.text in ("none", "null"):
            yield given
        else:
            yield Option("debugcon", f"file:{self._console('hs-debugcon')}")

    def _port(self, given: Option) -> Iterator[Option]:
        """A port with what is behind it in one word."""
        text = given.text or ""
        if text in ("none", "null") or text.startswith("chardev:") or re.fullmatch(r"vc(:[0-9Cx]+)?", text):
            yield given
            return
        if text.startswith(("vc", "pty")):
            yield Option(given.name, "pty" if text.startswith("pty") else "vc")  # a newer QEMU takes a path behind it
            return
        name = f"hs-{given.name}{len(self.consoles)}"
        if text.startswith(_LISTENING):
            yield self._listening(name)
        else:
            yield option("chardev", first="file", id=name, path=str(self._console(name)))
        yield Option(given.name, f"chardev:{name}")


def _used(user: Option) -> str:
    """The id of the character device that an option uses; empty if it uses none."""
    if user.name in ("device", "netdev", "mon", "tpmdev"):
        return user.word("chardev")
    text = user.text or ""
    ports_and_monitors = (*NAMES - {"chardev"}, "monitor", "qmp", "qmp-pretty")
    return text.removeprefix("chardev:") if user.name in ports_and_monitors and text.startswith("chardev:") else ""
