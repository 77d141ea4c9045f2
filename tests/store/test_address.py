from __future__ import annotations

from pathlib import Path

import pytest

from headstart import errors
from headstart.store import open_store


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "FILE://{}"])
def test_a_directory(tmp_path: Path, form: str) -> None:
    open_store(form.format(tmp_path / "a b")).create("config", b"x")
    assert (tmp_path / "a b" / "config").read_bytes() == b"x"


def test_an_escaped_url(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/a%20b").create("config", b"x")
    assert (tmp_path / "a b" / "config").exists()


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("here")
    monkeypatch.chdir("/")
    store.create("config", b"x")
    assert (tmp_path / "here" / "config").exists()


def test_touches_nothing(tmp_path: Path) -> None:
    open_store(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "'ftp'.*path or file:///path"),
        ("file://host/x", "file:///path"),
        ("file://", "directory"),
        ("", "directory"),
        ("a\0b", "directory"),
        ("file:///x?y=1", "file:///path"),
    ],
)
def test_says_what_there_is(url: str, said: str) -> None:
    with pytest.raises(errors.Usage, match=said):
        open_store(url)
