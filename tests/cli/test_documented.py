"""Commands that stand in a block of README or docs are taken by the parser as they stand there, remarks and all."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.cli import program

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: What a shell puts between two commands.
_BETWEEN = re.compile(r"[();<>|&]+")
#: A block by its fence, but of what is shown; or by four spaces.
_FENCED = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[str]:
    for block in _FENCED.findall(text):
        yield from block.splitlines()
    yield from (line for line in text.splitlines() if line.startswith("    "))


def words_of(line: str) -> list[str]:
    """As a shell would split it; remarks are gone."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    return list(reader)


def commands(line: str) -> Iterator[list[str]]:
    """What comes behind each ``headstart`` that is a command and no name of a unit, a user or a container."""
    try:
        words = words_of(line)
    except ValueError:
        words = line.split()
    found: list[list[str]] = [[]]
    for word in words:
        if _BETWEEN.fullmatch(word):
            found.append([])
        else:
            found[-1].append(word)
    for each in found:
        first = next((number for number, word in enumerate(each) if not re.match(r"[A-Z_]+=|export$", word)), 0)
        if each[first : first + 1] == ["headstart"]:
            yield each[first + 1 :]
        elif "headstart" in each:
            rest = each[len(each) - each[::-1].index("headstart") :]
            if rest and rest[0] in program.VERBS:
                yield rest


def documented() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for line in blocks(page.read_text()):
            for given in commands(line):
                # Its own synopsis, and drawings.
                if "[OPTIONS]" not in given and "-->" not in line:
                    yield f"{page.name}: {line.strip()}", given


def test_every_documented_command_is_one() -> None:
    parser, seen, wrong = program.parser_of(), 0, []
    for said, given in documented():
        seen += 1
        try:
            parser.parse_args(given)
        except errors.Usage as error:
            wrong.append(f"{said}\n    {error}")
    assert seen > 100
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("    headstart run     # until Ctrl-C; 'headstart join' first", [["run"]]),
        ("    headstart run     until Ctrl-C", [["run", "until", "Ctrl-C"]]),
        ("    headstart export web@latest - | ssh there 'cat > web.hsx'", [["export", "web@latest", "-"]]),
        ("    runuser -u headstart-server -- headstart server admin root", [["server", "admin", "root"]]),
        ("    systemctl enable --now headstart", []),
    ],
)
def test_commands_are_found(line: str, found: list[list[str]]) -> None:
    assert list(commands(line)) == found
