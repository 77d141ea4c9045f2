"""The wheel holds what the program needs, and nothing else; made again it is the same to the byte."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_OTHERS = shutil.ignore_patterns("__pycache__")


def build(folder: Path) -> Path:
    """From a copy: what lies about here has no part in it."""
    for name in ("src", "README.md", "LICENSE", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_OTHERS)
        else:
            shutil.copy(source, folder / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return build(tmp_path_factory.mktemp("one"))


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "headstart").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    information = {name for name in held if name.partition("/")[0].endswith(".dist-info")}
    assert held - information == wanted
    # What is no module is easily forgotten.
    server = ("pages/templates/base.html", "pages/static/style.css", "migrations/script.py.mako")
    agent = ("agentd/main.py", "guest/headstart-agentd.service", "guest/headstart-agentd.openrc", "py.typed")
    assert {f"headstart/{name}" for name in (*(f"server/{each}" for each in server), *agent)} <= wanted
    assert any(name.endswith("licenses/LICENSE") for name in information)


def test_what_it_holds_of_others_is_in_the_bill_of_materials(tmp_path: Path) -> None:
    file = tmp_path / "bill.json"
    parts = [{"bom-ref": name, "name": name} for name in ("attrs", "zstandard")]
    depends = [{"ref": "attrs"}, {"ref": "root-component", "dependsOn": ["attrs", "zstandard"]}, {"ref": "zstandard"}]
    file.write_text(json.dumps({"components": parts, "dependencies": depends}))
    subprocess.run([sys.executable, "scripts/materials.py", file], cwd=ROOT, check=True, timeout=60)
    told = json.loads(file.read_text())
    [added] = [each for each in told["components"] if each not in parts]
    assert (
        re.fullmatch(r"pkg:npm/htmx\.org@2\.\d+\.\d+", added["purl"])
        and added["licenses"][0]["license"]["id"] == "0BSD"
    )
    [ours] = [each for each in told["dependencies"] if each["ref"] == "root-component"]
    assert ours["dependsOn"] == ["attrs", added["bom-ref"], "zstandard"]


def test_made_elsewhere_it_is_the_same(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    folder = tmp_path / "somewhere" / "else"
    folder.mkdir(parents=True)
    assert build(folder).read_bytes() == wheel.read_bytes()


def run(folder: Path, first: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The program that lies in ``folder``, with what is installed here."""
    entry = "from headstart.cli.main import main; sys.exit(main())"
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); {first}; {entry}"
    return subprocess.run([sys.executable, "-I", "-c", program, *words], capture_output=True, text=True, timeout=60)


def test_what_is_unpacked_runs(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    agent = "from headstart.guest import package; assert package.build()"
    done = run(tmp_path, f"{agent}; assert package.__file__.startswith({str(tmp_path)!r})", "--version")
    assert done.stdout.startswith("headstart "), done.stderr


def test_without_libnbd_it_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    # As in an environment that does not see the distribution's packages.
    done = run(tmp_path, "sys.modules['nbd'] = None", "vm", "add", "web", "--qmp", "/none")
    assert done.returncode == 14
    assert "python3-libnbd" in done.stderr and "--system-site-packages" in done.stderr
    assert "Traceback" not in done.stderr
