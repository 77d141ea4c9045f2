"""QEMU's command line as values, and back."""

from __future__ import annotations

import pytest

from headstart import errors
from headstart.restore.booting import commandline
from headstart.restore.booting.commandline import Option


def test_words_become_options_and_words_again() -> None:
    text = "/bin/qemu-system-x86_64 -nodefaults -M q35,accel=kvm -append '-x console=ttyS0' --enable-kvm a.img -m 4G"
    line = commandline.read(text)
    assert line.program == "/bin/qemu-system-x86_64"
    assert line.options == (
        Option("nodefaults"),
        Option("machine", "q35,accel=kvm"),
        Option("append", "-x console=ttyS0"),
        Option("enable-kvm"),
        Option("", "a.img"),
        Option("m", "4G"),
    )
    assert line.words[:4] == ("/bin/qemu-system-x86_64", "-nodefaults", "-machine", "q35,accel=kvm")
    assert line.words[-3:] == ("a.img", "-m", "4G")


def test_a_script_of_the_owners() -> None:
    text = """#!/bin/sh
# starts web
exec taskset -c 3 qemu-system-x86_64 -m 1G \\
    -drive file='/vm/my disk.img',if=virtio \\
    -newer-flag -S > /var/log/web 2>&1 &
echo started
"""
    line = commandline.read(text)
    assert [(each.name, each.text) for each in line.options] == [
        ("m", "1G"),
        ("drive", "file=/vm/my disk.img,if=virtio"),
        ("newer-flag", None),
        ("S", None),
    ]


@pytest.mark.parametrize("text", ["", "my-vm --memory 4", "qemu-system-x86_64 -name 'no end", "[vm]\nmemory = 4"])
def test_what_is_no_command_line_is_refused(text: str) -> None:
    with pytest.raises(errors.Unsupported, match="no command line of QEMU's"):
        commandline.read(text)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        (Option("device", "e1000,netdev=n,id=a"), {"driver": "e1000", "netdev": "n", "id": "a"}),
        (Option("drive", "file=a,,b,format=raw"), {"file": "a,b", "format": "raw"}),
        (
            Option("chardev", "socket,id=c,server,nowait"),
            {"backend": "socket", "id": "c", "server": "on", "wait": "off"},
        ),
        (Option("device", '{"driver": "e1000", "id": "a"}'), {"driver": "e1000", "id": "a"}),
        (Option("m", "4G,slots=2"), {"size": "4G", "slots": "2"}),
    ],
)
def test_an_option_has_the_values_that_are_written(option: Option, values: dict[str, object]) -> None:
    assert option.values == values
    assert option.having().values == values


def test_json_that_is_none() -> None:
    with pytest.raises(errors.Unsupported, match="JSON"):
        _ = Option("device", "{driver").values


def test_dotted_keys_stand_inside_each_other() -> None:
    node = Option("blockdev", "driver=qcow2,node-name=n,file.driver=file,file.filename=/x,,y")
    file = {"driver": "file", "filename": "/x,y"}
    assert commandline.nested(node) == {"driver": "qcow2", "node-name": "n", "file": file}


def test_for_a_shell() -> None:
    assert commandline.shell(("qemu", "-m", "1", "-append", "a b")) == "qemu \\\n    -m 1 \\\n    -append 'a b'"
