"""QEMU's command line: words as options, and what stands in an option as values by their keys.

A word that begins with a dash is an option, and takes the next word unless it is one of ``FLAGS``. An option's text is
``first,key=value,...``, where a comma in a value is doubled, or JSON.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from headstart import errors, plain

#: Options that take no argument (``qemu-options.def`` of QEMU 2.x to 9.x).
FLAGS = frozenset(
    {
        *(
            "S",
            "alt-grab",
            "async-teardown",
            "ctrl-grab",
            "curses",
            "daemonize",
            "enable-fips",
            "enable-kvm",
            "enable-sync-profile",
        ),
        *("full-screen", "h", "help", "mem-prealloc", "no-acpi", "no-fd-bootchk", "no-frame", "no-hpet", "no-kvm"),
        *("no-kvm-irqchip", "no-kvm-pit", "no-kvm-pit-reinjection", "no-quit", "no-reboot", "no-shutdown"),
        *("no-user-config", "nodefaults", "nodefconfig", "nographic", "old-param", "only-migratable", "portrait"),
        *("preconfig", "rtc-td-hack", "s", "sdl", "semihosting", "show-cursor", "singlestep", "snapshot", "tdf"),
        *("usb", "version", "win2k-hack", "xen-attach", "xen-domid-restrict", "no-fd", "localtime"),
    }
)
#: Options whose argument may begin with a dash.
_ANYTHING = frozenset({"append", "name", "m", "smp"})
#: The key of a first value that has none.
_FIRST = {
    "accel": "accel",
    "audio": "driver",
    "audiodev": "driver",
    "blockdev": "driver",
    "chardev": "backend",
    "device": "driver",
    "icount": "shift",
    "m": "size",
    "machine": "type",
    "mon": "chardev",
    "name": "guest",
    "net": "type",
    "netdev": "type",
    "nic": "type",
    "object": "qom-type",
    "smp": "cpus",
    "tpmdev": "type",
}
#: Keys of which each counts that is given: a list, if there are several.
_LISTS = frozenset({"dnssearch", "guestfwd", "host-nodes", "hostfwd"})
#: Other spellings of an option.
_SAME = {"M": "machine"}
#: Where a shell's command ends.
_ENDS = frozenset({"&", "&&", "|", "||", ";", ">", ">>", "2>", "2>&1", "<"})
_KEY = re.compile(r"[^=,]+")
_PROGRAM = re.compile(r"(qemu-system-[a-z0-9_]+|qemu-kvm|kvm|qemu)(-[a-z0-9.]+)?$")


@dataclass(frozen=True, slots=True)
class Option:
    """``name`` without dashes; empty for an image that stands alone. ``text`` None: it takes none."""

    name: str
    text: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        return parse(self.text or "", _FIRST.get(self.name, ""))

    def word(self, key: str) -> str:
        """A value as text; empty if there is none."""
        return as_text(self.values.get(key, ""))

    def having(self, **changes: str | None) -> Option:
        """The same with other values (``_`` stands for ``-``, None takes one away), spelled as it was."""
        values = self.values
        for key, value in changes.items():
            values.pop(key.replace("_", "-"), None)
            if value is not None:
                values[key.replace("_", "-")] = value
        as_json = (self.text or "").startswith("{")
        return Option(self.name, json.dumps(values) if as_json else compose(values, _FIRST.get(self.name, "")))


@dataclass(frozen=True, slots=True)
class CommandLine:
    program: str
    options: tuple[Option, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return (self.program, *(word for option in self.options for word in _words(option)))

    def first(self, *names: str) -> Option | None:
        return next((option for option in self.options if option.name in names), None)


def read(definition: str) -> CommandLine:
    """A command line as text, quoted for a shell. Raises ``Unsupported`` when it is none of QEMU's."""
    lines = [line for line in definition.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    try:
        words = shlex.split("\n".join(lines))
    except ValueError as error:
        raise _no_command_line(definition, str(error)) from error
    for number, word in enumerate(words):
        if _PROGRAM.match(PurePath(word).name):
            end = next((at for at in range(number, len(words)) if words[at] in _ENDS), len(words))
            return CommandLine(word, tuple(_options(words[number + 1 : end])))
    raise _no_command_line(definition, "no word of it is a QEMU (qemu-system-…)")


def _no_command_line(definition: str, why: str) -> errors.Unsupported:
    return errors.Unsupported(
        f"The definition in the snapshot is no command line of QEMU's: {why}. It begins with"
        f" {plain.line(definition[:60])!r}. Restore the disks with 'headstart restore', or name a command line with"
        " --definition."
    )


def _options(words: list[str]) -> Iterator[Option]:
    number = 0
    while number < len(words):
        word = words[number]
        number += 1
        if not word.startswith("-") or word == "-":
            yield Option("", word)
            continue
        name = word.lstrip("-")
        name = _SAME.get(name, name)
        following = words[number] if number < len(words) else None
        # An option that is not known here may be a flag: then another option follows.
        if name in FLAGS or following is None or (following.startswith("-") and name not in _ANYTHING):
            yield Option(name)
        else:
            number += 1
            yield Option(name, following)


def _words(option: Option) -> Iterator[str]:
    if option.name:
        yield f"-{option.name}"
    if option.text is not None:
        yield option.text


def parse(text: str, first: str = "") -> dict[str, Any]:
    """``first``: the key of a first value without one. Of what is given twice the last counts, as for QEMU,
    but for ``_LISTS``."""
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            raise errors.Unsupported(f"The VM's definition has JSON that is none: {plain.line(text)}.") from None
        return dict(found)
    values: dict[str, Any] = {}
    for number, part in enumerate(_parts(text)):
        key, given, value = part.partition("=")
        if given and key in _LISTS and key in values:
            before = values[key]
            values[key] = [*(before if isinstance(before, list) else [before]), value]
        elif given:
            values[key] = value
        elif number == 0 and first:
            values[first] = part
        elif part.startswith("no"):
            values[part[2:]] = "off"
        elif part:
            values[part] = "on"
    return values


def _parts(text: str) -> list[str]:
    """Between single commas; two stand for one in a value."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def compose(values: Mapping[str, Any], first: str = "") -> str:
    """Raises ``Unsupported`` for a key that QEMU would take for another one."""
    for key in values:
        if not _KEY.fullmatch(key):
            raise errors.Unsupported(f"The VM's definition has an option {plain.line(key)!r} that makes no sense.")
    parts = []
    if first in values:
        parts.append(_quoted(values[first]))
    parts += [
        f"{key}={_quoted(each)}"
        for key, value in values.items()
        if key != first
        for each in (value if isinstance(value, list) else [value])
    ]
    return ",".join(parts)


def _quoted(value: object) -> str:
    return as_text(value).replace(",", ",,")


def as_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def option(name: str, **values: str | None) -> Option:
    """``_`` in keys stands for ``-``; the option's first key is ``first``."""
    first = _FIRST.get(name, "")
    named = {
        (first if key == "first" else key.replace("_", "-")): value
        for key, value in values.items()
        if value is not None
    }
    return Option(name, compose(named, first))


def nested(option: Option) -> dict[str, Any]:
    """A ``-blockdev``, with dotted keys (``file.filename``) put inside each other."""
    found: dict[str, Any] = {}
    for key, value in option.values.items():
        *path, last = key.split(".")
        inner = found
        for part in path:
            deeper = inner.setdefault(part, {})
            inner = deeper if isinstance(deeper, dict) else inner
        inner[last] = value
    return found


def shell(words: Iterable[str]) -> str:
    """One option a line."""
    lines = [""]
    for word in words:
        if word.startswith("-") and lines[-1]:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + shlex.quote(word)
    return " \\\n    ".join(lines)
