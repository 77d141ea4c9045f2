"""A release gathers what changed into a section for operators, writes the version down, and tags it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@tests.invalid")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def release(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / "scripts/release", version], capture_output=True, text=True, timeout=60)


def commit(folder: Path, changes: dict[str, str]) -> None:
    for name, text in changes.items():
        (folder / "changelog.d" / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "tests: Something")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src/headstart").mkdir(parents=True)
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "src/headstart/__init__.py", tmp_path / "src/headstart/__init__.py")
    shutil.copy(ROOT / "changelog.d/README.md", tmp_path / "changelog.d/README.md")
    for name in ("release", "changelog.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    git(tmp_path, "init", "--quiet")
    for key in ("name", "email"):
        git(tmp_path, "config", f"user.{key}", "tests@tests.invalid")
    return tmp_path


def test_releases_gather_what_changed(project: Path) -> None:
    commit(project, {"run.md": "`headstart run`: a daemon;\n`status`.\n"})
    assert release(project, "1.2.0").returncode == 0
    commit(project, {"upgrade-keys.md": "Make keys anew.\n", "fixed-lock.md": "A lock.\n", "gc.md": "`gc`.\n"})
    assert release(project, "1.10.0").returncode == 0
    headings = [line for line in (project / "CHANGELOG.md").read_text().splitlines() if line.startswith("#")]
    assert [heading.partition(" (")[0] for heading in headings] == [
        *("# Changes", "## 1.10.0", "### Before you upgrade", "### New and changed", "### Mended"),
        *("## 1.2.0", "### New and changed"),
    ]
    assert "* `headstart run`: a daemon;\n  `status`.\n" in (project / "CHANGELOG.md").read_text()
    assert [path.name for path in (project / "changelog.d").iterdir()] == ["README.md"]
    assert '__version__ = "1.10.0"' in (project / "src/headstart/__init__.py").read_text()
    assert git(project, "tag").split() == ["v1.10.0", "v1.2.0"]
    assert git(project, "status", "--porcelain") == ""


def test_what_cannot_be_released_is_refused(project: Path) -> None:
    commit(project, {"run.md": "A daemon.\n"})
    for version in ("", "v1.0.0", "1..0", "1.0.0-rc1"):
        assert release(project, version).returncode == 2
    assert release(project, "1.0.0").returncode == 0
    commit(project, {"more.md": "More.\n"})
    assert "released before" in release(project, "1.0.0").stderr
    assert "comes before v1.0.0" in release(project, "0.9.0").stderr
    (project / "left").write_text("")
    assert "not committed" in release(project, "1.1.0").stderr
    (project / "left").unlink()
    (project / "changelog.d/more.md").unlink()
    git(project, "commit", "--quiet", "--all", "--message", "tests: Nothing")
    assert "nothing to release" in release(project, "1.1.0").stderr
    assert git(project, "tag").split() == ["v1.0.0"]
