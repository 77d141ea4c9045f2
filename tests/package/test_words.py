"""Manual pages and completion say what the parser says, and nobody's tools complain."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from headstart import errors
from headstart.cli import completion, manual, program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100000")
        for name, text in manual.pages().items():
            (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return program.parser_of()


def rendered(page: Path) -> str:
    """As words; ``--warnings`` makes what roff does not understand an output of its own."""
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-P", "cat", "-l", page],
        capture_output=True,
        text=True,
        env={**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8"},
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return " ".join(re.sub(r".\x08", "", done.stdout).split())


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man, of Debian's package man-db")
def test_every_verb_has_a_page_with_all_that_its_help_says(pages: Path, parser: argparse.ArgumentParser) -> None:
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert sorted(path.name for path in pages.iterdir()) == sorted(
        ["headstart.1", *(f"headstart-{verb}.1" for verb in verbs.choices)]
    )
    for name, verb in verbs.choices.items():
        text = rendered(pages / f"headstart-{name}.1")
        for each in completion.parsers_of(verb):
            for action in each._actions:
                told = argparse.HelpFormatter("headstart")._expand_help(action) if action.help else ""
                assert " ".join(told.split()) in text, (name, action.dest)
                assert all(option in text for option in action.option_strings), (name, action.dest)


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man, of Debian's package man-db")
def test_the_first_page_names_every_verb_and_every_status(pages: Path) -> None:
    text = rendered(pages / "headstart.1")
    assert all(f"headstart-{verb}(1)" in text for verb in program.VERBS)
    status = text.partition("EXIT STATUS")[2]
    assert all(re.search(rf" {code} \S", status) for code in errors.EXIT_CODES.values())


def test_every_verb_is_in_the_page_on_the_command_line(parser: argparse.ArgumentParser) -> None:
    documented = (ROOT / "docs" / "cli.md").read_text() + (ROOT / "docs" / "server.md").read_text()
    for each in completion.parsers_of(parser):
        words = each.prog.removeprefix("headstart").split()
        has_verbs = any(isinstance(action, argparse._SubParsersAction) for action in each._actions)
        if words and not has_verbs:
            assert re.search(rf"`(headstart )?{' '.join(words)}\b|{words[0]} .*`{' '.join(words[1:])}", documented), (
                words
            )


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_shells_take_their_scripts(shell: str, parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text(completion.script_of(parser, shell))
    subprocess.run([shell, "-n", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["headstart", "vm", "re"], {"release", "remove"}),
        (["headstart", "backup", "--pl"], {"--plain"}),
        (["headstart", "precopy", "web", "--transport", ""], {"auto", "agent", "appliance", "host"}),
    ],
    ids=("a verb", "an option", "a choice"),
)
def test_bash_completes(words: list[str], wanted: set[str], parser: argparse.ArgumentParser, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(completion.script_of(parser, "bash"))
    line = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_headstart; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", line, "bash", *words], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == wanted, done.stderr
