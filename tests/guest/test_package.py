"""The one file: reproducible, whole or not there, and never in the place of something else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from headstart import errors
from headstart.guest import package


def test_the_same_sources_make_the_same_file() -> None:
    assert package.build() == package.build()
    assert package.build(dict(reversed(package.sources().items()))) == package.build()


def test_another_name_or_text_is_another_digest() -> None:
    digests = [
        package.digest(texts)
        for texts in ({"a": "bc"}, {"ab": "c"}, {"a": "b", "c": ""}, {"a": ""}, {}, {"a": "bc", "d": ""})
    ]
    assert len(set(digests)) == len(digests)


def test_it_holds_sources_and_nothing_else(tmp_path: Path) -> None:
    package.write(tmp_path / "agentd")
    with zipfile.ZipFile(tmp_path / "agentd") as archive:
        names = archive.namelist()
        assert {name: archive.read(name).decode() for name in names if name != "__main__.py"} == package.sources()
    assert names[0] == "__main__.py"


def test_it_runs_without_anything_of_ours(tmp_path: Path) -> None:
    package.write(tmp_path / "agentd")
    done = subprocess.run([sys.executable, "-I", "-S", tmp_path / "agentd", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout
    assert (tmp_path / "agentd").stat().st_mode & 0o777 == 0o755


def test_one_of_ours_is_replaced(tmp_path: Path) -> None:
    place = tmp_path / "agentd"
    place.write_bytes(package.build(package.sources() | {"headstart/agentd/older.py": ""}))
    package.write(place)
    assert place.read_bytes() == package.build()
    assert [path.name for path in tmp_path.iterdir()] == ["agentd"]


@pytest.mark.parametrize("kind", ["text", "zip", "folder", "link", "empty"])
def test_anything_else_is_left_alone(tmp_path: Path, kind: str) -> None:
    place, other = tmp_path / "agentd", tmp_path / "other"
    if kind == "folder":
        place.mkdir()
    elif kind == "link":
        package.write(other)
        place.symlink_to(other)
    elif kind == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("__main__.py", "")
    else:
        place.write_text("precious" if kind == "text" else "")
    before = place.lstat()
    with pytest.raises(errors.TargetRefused, match="no agent of Headstart's"):
        package.write(place)
    assert place.lstat() == before


@pytest.mark.parametrize("folder", ["missing", "/proc"])
def test_a_place_that_cannot_be_written(tmp_path: Path, folder: str) -> None:
    with pytest.raises(errors.TargetRefused, match="cannot be written"):
        package.write(tmp_path / folder / "agentd")
