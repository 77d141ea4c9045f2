"""What the definition in a snapshot may not have this host do.

Whoever may add to a repository may put any definition into it, and whoever boots it is root, as a rule. So it chooses
none of the host's programs, and none of its files to write to: it has the options, objects, nodes and keys that are
known to do neither. A definition that the user names is the user's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from headstart import errors, plain
from headstart.hypervisor.qemu.graph import FILTERS, LASTING_FILTERS
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
#: Options with an argument that stay; some of them have QEMU read a file.
_KNOWN = frozenset(
    {
        *(
            "accel",
            "acpitable",
            "action",
            "append",
            "audio",
            "audiodev",
            "balloon",
            "bios",
            "blockdev",
            "boot",
            "compat",
        ),
        *("cpu", "dtb", "echr", "fw_cfg", "g", "global", "icount", "initrd", "k", "kernel", "machine", "msg", "numa"),
        *("option-rom", "overcommit", "prom-env", "rotate", "rtc", "sandbox", "seed", "smbios", "smp", "soundhw"),
        *("tb-size", "uuid", "vga", "watchdog", "watchdog-action"),
    }
)
_OBJECTS = re.compile(
    r"(iothread|main-loop|thread-context|throttle-group|rng-builtin|rng-random|secret|secret_keyring"
    r"|tls-creds-(anon|psk|x509)|authz-(simple|list)|memory-backend-(ram|file|memfd|shm|epc)"
    r"|cryptodev-backend(-builtin)?|sev-guest|sev-snp-guest|s390-pv-guest|can-bus|acpi-generic-\w+)$"
)
_RANDOM = ("", "/dev/random", "/dev/urandom", "/dev/hwrng")
#: What is not to be had with the keys of an option that stays.
_LOSES = {
    "accel": (("device",), "a device of the host"),
    "icount": (("rr", "rrfile", "rrsnapshot"), "a file of the host"),
    "machine": (("dumpdtb",), "a file of the host"),
    "device": (("pcap",), "a file of the host"),  # every device of USB has it
}
#: Of network cards: what is started, or written to, by what leads them somewhere.
_HELPERS = ("script", "downscript", "helper", "guestfwd", "smb", "smbserver", "tftp")
_NETWORKS = frozenset({"bridge", "hubport", "nic", "none", "socket", "tap", "user"})
#: Of devices, what leads to a file without naming its path.
_DEVICE_FILES = frozenset({"pcap", "drive", "driveA", "driveB"})
#: Texts of a device that may have a slash in them.
_WORDS = frozenset(
    {"bus", "file", "id", "kernel", "initrd", "model", "name", "osk", "product", "romfile", "serial", "vendor", "ver"}
)
#: What is left of a node. ``file`` and ``backing`` are other nodes, or are described inside of it.
_NODE_KEYS = frozenset(
    {
        *("driver", "node-name", "read-only", "file", "backing", "filename", "discard", "detect-zeroes"),
        *("throttle-group", "prealloc-align", "prealloc-size", "bottom"),
    }
)
_MEDIUM_KEYS = frozenset({"id", "if", "index", "bus", "unit", "media", "file", "format", "readonly"})
_FORMATS = frozenset(
    {"raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vhdx", "vpc", "dmg", "parallels", "bochs", "cloop"}
)
_QUIET_SOUND = ("none", "spice")

Note = Callable[[str], None]


def tamed(line: CommandLine, note: Note, handled: Collection[str] = ()) -> CommandLine:
    """The same without that; ``note`` is told what is different. ``handled``: options that the caller minds. Raises
    ``Unsupported`` for a disk with a filter that writes elsewhere."""
    options = (_tamed(option, note, handled) for option in line.options)
    return CommandLine(_program(line.program, note), tuple(option for option in options if option is not None))


def is_installed(program: str) -> bool:
    """It is where programs are installed; a name alone is looked for there."""
    return "/" not in program or str(PurePath(program).parent) in _PLACES


def medium(option: Option) -> Option:
    """A ``-drive`` or ``-blockdev`` with a file of the host, to be read only."""
    values = commandline.nested(option)
    if option.name != "drive":
        return _spelled(option, _read_only(values))
    file = values.get("file", "")
    kept = {key: value for key, value in values.items() if key in _MEDIUM_KEYS}
    kept["file"] = file.get("filename", "") if isinstance(file, dict) else file
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    return Option("drive", commandline.compose(kept | {"readonly": "on"}))


def _read_only(node: Mapping[str, Any]) -> dict[str, Any]:
    inside = {key: _read_only(value) for key, value in node.items() if isinstance(value, dict)}
    return {**node, **inside, "read-only": True}


def _spelled(option: Option, node: Mapping[str, Any]) -> Option:
    """As the option was: only JSON has ``true``, and only the other one ``on``."""
    if (option.text or "").startswith("{"):
        return Option(option.name, json.dumps(node))
    return Option(option.name, commandline.compose(dict(_flat(node)), "driver"))


def _flat(node: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _program(named: str, note: Note) -> str:
    if is_installed(named):
        return named
    path = PurePath(named)
    note(f"QEMU is the {plain.line(path.name)} of this host, and not {plain.line(named)}, which the definition names")
    return path.name


def _tamed(option: Option, note: Note, handled: Collection[str]) -> Option | None:
    name = option.name
    if name in _LEFT_OUT:
        note(f"-{name} is left out: {_LEFT_OUT[name]}")
        return None
    if option.text is None and name in commandline.FLAGS:
        return option
    if name not in _KNOWN and name not in handled:
        note(f"-{plain.line(name)} is left out: it is not known what it does to the host; --definition is believed")
        return None
    if option.text is None:
        # QEMU would take what follows for its argument, whatever we made of that.
        note(f"-{name} is left out: it takes an argument, and has none")
        return None
    tame = _TAMED.get(name)
    if name in _LOSES:
        option = _without(option, *_LOSES[name], note)
    # Spelled anew, so that QEMU reads what was read here.
    option = option.having() if tame or name in _LOSES else option
    return option if tame is None else tame(option, note)


def _network(option: Option, note: Note) -> Option | None:
    option = _without(option, _HELPERS, "a program, or a folder, of the host", note)
    if option.word("type") in _NETWORKS:
        return option
    note(f"-{option.name} leads to nothing: {plain.line(option.word('type'))} is a program or a file of the host")
    if option.name == "net":
        return None
    model = {"model": option.word("model") or None, "mac": option.word("mac") or None} if option.name == "nic" else {}
    return commandline.option(option.name, first="user", id=option.word("id") or None, restrict="on", **model)


def _sound(option: Option, note: Note) -> Option:
    driver = option.word("driver")
    values = {"driver": driver if driver in _QUIET_SOUND else "none"}
    values |= {key: option.word(key) for key in ("id", "model") if option.word(key)}
    if driver not in _QUIET_SOUND:
        note(f"-{option.name} is of the host's: its sound goes nowhere")
    return Option(option.name, commandline.compose(values))


def _device(option: Option, note: Note) -> Option | None:
    values = option.values.items()
    for key in [key for key, value in values if "/" in commandline.as_text(value) and key not in _WORDS]:
        note(f"device {plain.line(option.word('driver'))} is left out: its {plain.line(key)} is a file of the host")
        return None
    return option


def _global(option: Option, note: Note) -> Option | None:
    named = option.word("property") or next(iter(option.values), "").rpartition(".")[2]
    if len(option.values) not in (1, 3) or "/" in f"{option.text}" or named in _DEVICE_FILES:
        note(f"-global {plain.line(str(option.text))} is left out: a file of the host")
        return None
    return option


def _object(option: Option, note: Note) -> Option | None:
    kind = option.word("qom-type")
    if kind == "rng-random" and option.word("filename") not in _RANDOM:
        # A device may do something for being opened: a watchdog ends the host.
        return _without(option, ("filename",), "it is no source of randomness", note)
    if _OBJECTS.match(kind):
        return option
    note(f"object {plain.line(kind)} is left out: it leads to files or programs of the host")
    return None


def _node(option: Option, note: Note) -> Option:
    return _spelled(option, _of_node(commandline.nested(option)))


def _of_node(values: Mapping[str, Any]) -> dict[str, Any]:
    driver = str(values.get("driver", ""))
    if driver in FILTERS - LASTING_FILTERS:
        raise errors.Unsupported(
            f"The VM's definition has a node {plain.line(str(values.get('node-name', '')))} of"
            f" {plain.line(driver)}, which writes to other files. Name another definition with --definition."
        )
    kept = {key: value for key, value in values.items() if key in _NODE_KEYS and not isinstance(value, list)}
    return {key: _of_node(value) if isinstance(value, dict) else value for key, value in kept.items()}


_TAMED: Mapping[str, Callable[[Option, Note], Option | None]] = {
    "audio": _sound,
    "audiodev": _sound,
    "blockdev": _node,
    "device": _device,
    "global": _global,
    "net": _network,
    "netdev": _network,
    "nic": _network,
    "object": _object,
}


def _without(option: Option, keys: tuple[str, ...], what: str, note: Note) -> Option:
    found = [key for key in keys if key in option.values]
    if not found:
        return option
    note(f"-{option.name} has its {' and '.join(found)} left out: {what}")
    return option.having(**dict.fromkeys(found))
