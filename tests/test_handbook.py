"""The site of the documentation: every page is in it, every link leads somewhere, and what the code writes is whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from handbook import api, commands, configuration, contents, lists
from headstart.cli.program import VERBS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with warnings as errors: a link, a heading or a file that is not there is one."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "handbook", str(folder)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def test_every_page_has_its_place() -> None:
    written = {str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / "docs").glob("*.md")}
    placed = contents.files()
    assert written == {each for each in placed if each.startswith("docs/")}
    assert len(placed) == len(set(placed))


def test_the_site_is_built_and_no_link_leads_nowhere(site: Path) -> None:
    assert (site / "index.html").exists() and (site / "docs" / "design.html").exists()


def test_a_readers_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in ("index.html", "docs/design.html", "reference/api.html"):
        text = (site / page).read_text()
        assert 'src="http' not in text and 'rel="stylesheet" href="http' not in text


def test_every_command_is_told() -> None:
    text = commands.page()
    missing = [verb for verb in VERBS if f"\n## headstart {verb}" not in text]
    assert not missing


def test_every_route_of_the_api_is_told() -> None:
    text = api.page()
    for path, methods in json.loads(api.document())["paths"].items():
        for method in methods:
            assert f"### {method.upper()} {path}\n" in text


def test_the_keys_of_the_configuration_are_those_of_the_code() -> None:
    page = configuration.PAGE.read_text()
    assert page == configuration.filled(page), "python -m handbook.configuration"
    assert page.count("<!-- keys of ") == 7
    assert not re.search(r"^\| `.*\|  \|$", page, re.MULTILINE), "each key has its meaning below it"


def test_events_and_variables_are_those_of_the_code() -> None:
    for page in lists.PAGES:
        assert page.read_text() == lists.filled(page.read_text()), "python -m handbook.lists"
    assert len(lists.written()) > 30
    told = "".join((ROOT / "docs" / page).read_text() for page in ("cli.md", "server.md"))
    read = {
        name
        for path in (ROOT / "src" / "headstart").rglob("*.py")
        for name in re.findall(r'"(HEADSTART_[A-Z_]*[A-Z])"', path.read_text())
    }
    # Its own word to a child of its.
    assert {name for name in read - {"HEADSTART_SERVER_FILE"} if f"`{name}`" not in told} == set()
    assert "HEADSTART_TOKEN" in read
