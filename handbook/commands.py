"""The page of all commands: what ``--help`` says of each, from the same parser."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence

from handbook.markdown import code, table
from headstart.cli import arguments
from headstart.cli.program import VERBS

_SHARED = "options of every command"


def page() -> str:
    parser = whole()
    parts = [
        "# Commands\n\nEvery command with its options, as `--help` has them. Exit statuses, JSON and what else scripts"
        " may rely on are in [the command line](../docs/cli.md).\n\n## Options of every command\n\n",
        _options(parser, shared=True),
    ]
    for each in leaves(parser):
        parts.append(f"## {each.prog}\n\n{each.description or ''}\n\n```\n{_usage(each)}\n```\n\n")
        parts.append(_options(each, shared=False))
    return "".join(parts)


def whole() -> arguments.Parser:
    """The parser with all verbs."""
    parser, verbs = arguments.new_parser()
    for module in dict.fromkeys(VERBS.values()):
        importlib.import_module(f"headstart.cli.{module}").add(verbs)
    return parser


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Those that do something, in the order in which ``--help`` tells them."""
    groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if parser.get_default("run") is not None:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from leaves(child)


def _usage(parser: argparse.ArgumentParser) -> str:
    """Without the options of every command."""
    shared = _shared(parser)
    kept = [each for each in parser._actions if each not in shared and each.dest != "help"]
    formatter = argparse.HelpFormatter(parser.prog, width=100)
    formatter.add_usage(None, kept, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _options(parser: argparse.ArgumentParser, *, shared: bool) -> str:
    of_all = _shared(parser)
    chosen: Sequence[argparse.Action] = of_all if shared else [each for each in parser._actions if each not in of_all]
    rows = [_row(each) for each in chosen if each.dest != "help" and each.help is not argparse.SUPPRESS]
    return table(("", ""), [row for row in rows if row is not None])


def _shared(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    groups = [group for group in parser._action_groups if group.title == _SHARED]
    return [action for group in groups for action in group._group_actions]


def _row(action: argparse.Action) -> tuple[str, str] | None:
    if isinstance(action, argparse._SubParsersAction):
        return None
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    shown = " ".join(value) if isinstance(value, tuple) else str(value)
    if action.option_strings:
        named = ", ".join(action.option_strings)
        shown = f"{named} {shown or action.dest.upper()}" if action.nargs != 0 else named
    told = (action.help or "") % {"default": action.default, "prog": "headstart"}
    return code(shown or action.dest), told
