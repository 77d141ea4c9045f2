"""A definition in a repository chooses no programs of the host, and no files to write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.restore.booting import commandline, definition, trust
from headstart.restore.booting.definition import Place


def tamed(words: str) -> tuple[str, list[str]]:
    notes: list[str] = []
    line = trust.tamed(commandline.read(words), notes.append)
    return " ".join(line.words), notes


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("/usr/bin/qemu-system-x86_64 -m 1G", "/usr/bin/qemu-system-x86_64 -m 1G"),
        ("/usr/libexec/qemu-kvm -m 1G", "/usr/libexec/qemu-kvm -m 1G"),
        ("/tmp/x/qemu-system-x86_64 -m 1G", "qemu-system-x86_64 -m 1G"),
        ("./qemu-system-x86_64 -m 1G", "qemu-system-x86_64 -m 1G"),
        ("/usr/bin/../../tmp/qemu-kvm -m 1G", "qemu-kvm -m 1G"),
        ("kvm -plugin /tmp/evil.so -m 1G", "kvm -m 1G"),
        ("kvm -plugin file=/tmp/evil.so", "kvm"),
        ("kvm -semihosting -trace events=/x,file=/etc/passwd -d in_asm", "kvm"),
        ("kvm -netdev tap,id=a,script=/tmp/x,downscript=/tmp/y", "kvm -netdev tap,id=a"),
        ("kvm -netdev bridge,id=a,helper=/tmp/x", "kvm -netdev bridge,id=a"),
        ('kvm -netdev \'{"type":"tap","id":"a","script":"/tmp/x"}\'', 'kvm -netdev {"type": "tap", "id": "a"}'),
        ("kvm -icount shift=auto,rr=record,rrfile=/etc/passwd", "kvm -icount shift=auto"),
        ("kvm -audiodev wav,id=a,path=/etc/passwd", "kvm -audiodev driver=none,id=a"),
    ],
)
def test_what_it_becomes(given: str, becomes: str) -> None:
    words, notes = tamed(given)
    assert words == becomes
    assert bool(notes) == (given != becomes)


def test_the_users_own_is_believed() -> None:
    place = Place("vm", Path("/run/place"), {}, there=lambda path: True)
    words = "/opt/qemu/qemu-system-x86_64 -m 1G -plugin /opt/plugin.so"
    assert definition.derive(words, (), place).words[0] == "qemu-system-x86_64"
    own = Place("vm", Path("/run/place"), {}, trusted=True, there=lambda path: True)
    derived = definition.derive(words, (), own)
    assert derived.words[0] == "/opt/qemu/qemu-system-x86_64" and "/opt/plugin.so" in derived.words
