"""``headstart completion``: what a shell needs to complete our command line. Made from the parser, by shtab."""

from __future__ import annotations

import argparse

from headstart.cli import arguments
from headstart.cli.session import Session

SHELLS = ("bash", "zsh", "fish")
#: How the parser calls what a shell can complete by itself.
_FILES = ("FILE", "PATH", "SOCKET")
_DIRECTORIES = ("DIR", "DIRECTORY")


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "completion", run, "Print what a shell needs to complete this command line.")
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(session: Session, given: argparse.Namespace) -> None:
    from headstart.cli import program

    script = script_of(program.parser_of(), given.shell)
    session.output.result({"shell": given.shell, "script": script}, script)


def script_of(parser: argparse.ArgumentParser, shell: str) -> str:
    import shtab

    for each in parsers_of(parser):
        for action in each._actions:
            if action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar in _DIRECTORIES:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return shtab.complete(parser, shell).rstrip("\n")


def parsers_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A parser, and those of its verbs and of theirs."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            # A verb may have other names: the same parser.
            found += [below for verb in dict.fromkeys(action.choices.values()) for below in parsers_of(verb)]
    return found
