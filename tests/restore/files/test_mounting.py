"""What keeps a snapshot from being mounted is told, with what to do."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headstart import errors
from headstart.restore.files import mounting


def mount(tmp_path: Path) -> None:
    mounting.mount({}, tmp_path, "name", lambda: None)


def test_without_fuse_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "_DEVICE", tmp_path / "nothing")
    with pytest.raises(errors.Unsupported, match="no FUSE"):
        mount(tmp_path)


def test_without_fusermount_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "_DEVICE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(errors.Unsupported, match="fusermount3: install the package fuse3"):
        mount(tmp_path)


def test_without_libfuse_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library looks for it as it is loaded."""

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> ModuleType | None:
            if name == "mfusepy":
                raise OSError("Unable to find libfuse")
            return None

    monkeypatch.setattr(mounting, "_DEVICE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delitem(sys.modules, "mfusepy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(errors.Unsupported, match="libfuse: install the package fuse3"):
        mount(tmp_path)
