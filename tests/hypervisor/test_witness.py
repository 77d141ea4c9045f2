"""Whatever somebody does to an image, two looks at it tell."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart import errors
from headstart.hypervisor import witness


def image(folder: Path) -> Path:
    path = folder / "image"
    path.write_bytes(bytes(4096))
    return path


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def overwrite_and_hide(path: Path) -> None:
    """The time of the last change can be set back; that of the last setting cannot."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


def cut(path: Path) -> None:
    os.truncate(path, 512)


@pytest.mark.parametrize("deed", [overwrite, overwrite_and_hide, replace, cut])
def test_what_is_done_to_an_image_is_told(tmp_path: Path, deed: Callable[[Path], None]) -> None:
    path = image(tmp_path)
    witness.settle([str(path)])
    before = witness.look(str(path))
    assert path.read_bytes() and witness.look(str(path)) == before
    deed(path)
    assert witness.look(str(path)) != before


@pytest.mark.parametrize(("options", "writes"), [((), True), (("-r",), False)])
def test_who_has_it_open_for_writing_is_told(tmp_path: Path, options: tuple[str, ...], writes: bool) -> None:
    path = image(tmp_path)
    command = ["qemu-io", *options, "-f", "raw", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin and holder.stdout
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        assert witness.look(str(path)).writer == writes
        holder.stdin.close()
    assert not witness.look(str(path)).writer


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable, match="cannot be opened"):
        witness.look(str(tmp_path / "image"))
