"""What the definition in a snapshot may not have this host do.

Whoever may add to a repository may put any definition into it, and whoever boots it is root, as a rule. So it chooses
none of the host's programs, and none of its files to write to. A definition that the user names is the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePath

from headstart import plain
from headstart.restore.booting import commandline
from headstart.restore.booting.commandline import CommandLine, Option

#: Where a distribution, or who administers this host, puts programs.
_PLACES = frozenset({"/bin", "/usr/bin", "/usr/local/bin", "/usr/libexec", "/usr/sbin", "/usr/local/sbin"})
_LEFT_OUT = {
    "plugin": "it loads a program into QEMU",
    "semihosting": "it opens the host's files to the guest",
    "semihosting-config": "it opens the host's files to the guest",
    **dict.fromkeys(("trace", "d", "dfilter", "dump-vmstate", "perfmap", "jitdump"), "it writes to files of the host"),
}
_SCRIPTS = ("script", "downscript", "helper")
_RECORDS = ("rr", "rrfile", "rrsnapshot")

Note = Callable[[str], None]


def tamed(line: CommandLine, note: Note) -> CommandLine:
    """The same without that; ``note`` is told what is different."""
    options = (_tamed(option, note) for option in line.options)
    return CommandLine(_program(line.program, note), tuple(option for option in options if option is not None))


def is_installed(program: str) -> bool:
    """It is where programs are installed; a name alone is looked for there."""
    return "/" not in program or str(PurePath(program).parent) in _PLACES


def _program(named: str, note: Note) -> str:
    if is_installed(named):
        return named
    path = PurePath(named)
    note(f"QEMU is the {plain.line(path.name)} of this host, and not {plain.line(named)}, which the definition names")
    return path.name


def _tamed(option: Option, note: Note) -> Option | None:
    if option.name in _LEFT_OUT:
        note(f"-{option.name} is left out: {_LEFT_OUT[option.name]}")
        return None
    if option.name in ("netdev", "nic", "net"):
        return _without(option, _SCRIPTS, "a program of the host", note)
    if option.name == "icount":
        return _without(option, _RECORDS, "a file of the host", note)
    if option.name == "audiodev" and re.match(r"(driver=)?wav(,|$)", option.text or ""):
        note("-audiodev writes to a file of the host: its sound goes nowhere")
        return Option("audiodev", commandline.compose({"driver": "none", "id": option.word("id")}))
    return option


def _without(option: Option, keys: tuple[str, ...], what: str, note: Note) -> Option:
    found = [key for key in keys if key in option.values]
    if not found:
        return option
    note(f"-{option.name} has its {' and '.join(found)} left out: {what}")
    return option.having(**dict.fromkeys(found))
