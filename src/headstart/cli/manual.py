"""The manual pages, made from the parser: ``python -m headstart.cli.manual DIRECTORY``. Packages bring them.

One page for the program and one for each verb, with the verbs that it has itself. The words are those of ``--help``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from headstart import __version__, errors
from headstart.cli import program

_HELP = "show this help message and exit"
_FILES = (
    ("/etc/headstart/headstart.toml", "policies: when the VMs of this host are backed up, and at whose cost"),
    ("/etc/headstart/headstart.env", "variables of the daemon that headstart.service starts"),
    ("/var/lib/headstart", "what this host remembers of its VMs; without root $XDG_STATE_HOME/headstart"),
    ("/var/cache/headstart", "what is known of the repository's index; may be lost"),
    ("/usr/share/doc/headstart/docs/emergency.md", "what to do when something is wrong"),
)
#: Those of the server alone are in docs/server.md, those that hooks get in docs/cli.md.
ENVIRONMENT = (
    ("HEADSTART_REPOSITORY", "as --repository"),
    ("HEADSTART_STATE, HEADSTART_SCRATCH, HEADSTART_CACHE", "as --state, --scratch and --cache"),
    ("HEADSTART_CONFIG", "as --config of run, doctor and config check"),
    ("HEADSTART_PASSWORD", "the repository's password"),
    ("HEADSTART_PASSWORD_FILE", "a file: the password is its first line"),
    ("HEADSTART_PASSWORD_COMMAND", "a shell command: the password is the first line that it prints"),
    (
        "HEADSTART_FROM_PASSWORD, HEADSTART_TO_PASSWORD, HEADSTART_NEW_PASSWORD",
        "the same (also with _FILE and _COMMAND) of a repository to copy or repair from, of one to copy to, of a"
        " password to be set",
    ),
    ("HEADSTART_TOKEN", "a token of a server; before what this host has joined with"),
    (
        "HEADSTART_FINGERPRINT",
        "beside it: the SHA-256 of the server's own certificate. Without it, authorities vouch for the server",
    ),
    ("HEADSTART_CA_BUNDLE", "a file of authorities that may do so beside the system's"),
)


def pages() -> dict[str, str]:
    """By the name of the file, such as ``headstart-vm.1``."""
    parser = program.parser_of()
    verbs = _verbs(parser)
    found = {"headstart.1": _page("headstart", parser, [*_commands(verbs), *_surroundings()])}
    for name, (verb, _) in verbs.items():
        found[f"headstart-{name}.1"] = _page(f"headstart-{name}", verb, list(_nested(verb)))
    return found


def _page(name: str, parser: argparse.ArgumentParser, more: list[str]) -> str:
    summary = (parser.description or "").rstrip(".")
    title = name.upper().replace("-", "\\-")
    day = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
    other = [] if name == "headstart" else [".SH SEE ALSO", ".BR headstart (1)"]
    lines = [
        f'.TH {title} 1 "{day}" "headstart {__version__}" "User Commands"',
        # Left alone: words that stand for values are no words to be divided.
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(summary[:1].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        *_synopsis(parser),
        *_arguments(parser),
        *more,
        *other,
    ]
    return "\n".join(lines) + "\n"


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    words = re.sub(r"^\[-h\] .*?\[-v\]", "[OPTION]...", usage.removeprefix(parser.prog).strip())
    yield from (".HP", f"\\fB{_plain(parser.prog)}\\fR {_plain(words)}")


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Those of the verb itself first, then those that every command has."""
    own: list[argparse.Action] = []
    shared: list[argparse.Action] = []
    for group in parser._action_groups:
        mine = [action for action in group._group_actions if not isinstance(action, argparse._SubParsersAction)]
        (shared if group.title == "options of every command" else own).extend(mine)
    if own:
        yield ".SH OPTIONS"
        for action in own:
            yield from _action(action)
    if shared:
        yield ".SH OPTIONS OF EVERY COMMAND"
        for action in shared:
            yield from _action(action)
    if parser.epilog:
        yield from (".SH NOTES", _plain(parser.epilog))


def _action(action: argparse.Action) -> Iterator[str]:
    if not action.option_strings and not action.help:
        return  # its name in the synopsis says it
    formatter = argparse.HelpFormatter(prog="headstart")
    shown = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    yield from (".TP", _bold(shown), _plain(text) or "\\&")


def _verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """By name: the parser of a verb, and what it is for in a line."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (verb, told.get(name, "")) for name, verb in action.choices.items()}
    return {}


def _commands(verbs: dict[str, tuple[argparse.ArgumentParser, str]]) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, (_, summary) in verbs.items():
        yield from (".TP", f".BR headstart\\-{_plain(name)} (1)", _plain(summary))


def _nested(parser: argparse.ArgumentParser) -> Iterator[str]:
    verbs = _verbs(parser)
    if verbs:
        yield ".SH COMMANDS"
    for verb, summary in verbs.values():
        yield f'.SS "{_plain(verb.prog)}"'
        yield _plain(summary)
        yield from _synopsis(verb)
        for group in verb._action_groups:
            if group.title != "options of every command":
                for action in group._group_actions:
                    if action.help != _HELP and not isinstance(action, argparse._SubParsersAction):
                        yield from _action(action)
        yield from _nested_again(verb)


def _nested_again(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (line for line in _nested(parser) if not line.startswith(".SH "))


def _surroundings() -> Iterator[str]:
    yield from (".SH ENVIRONMENT", "An option comes before its variable; an empty variable is none.")
    for name, text in ENVIRONMENT:
        yield from (".TP", _bold(name), _plain(text))
    yield ".SH FILES"
    for name, text in _FILES:
        yield from (".TP", f"\\fI{_plain(name)}\\fR", _plain(text))
    yield from (".SH EXIT STATUS", ".TP", "\\fB0\\fR", "done")
    for status, text in _statuses():
        yield from (".TP", f"\\fB{status}\\fR", _plain(text))


def _statuses() -> Iterator[tuple[str, str]]:
    """From the tree of errors, where each has its line."""
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"\s+(?:\|- )?\w+ +(\d+) +(\S.*)", line)
        if found:
            yield found[1], found[2]


def _bold(text: str) -> str:
    return f"\\fB{_plain(text)}\\fR"


def _plain(text: str) -> str:
    """Text that roff takes for nothing else: no requests, and hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("~", "\\(ti").replace("^", "\\(ha")
    return "\\&" + escaped if escaped.startswith(".") else escaped


def main() -> None:
    # However wide the terminal is.
    os.environ["COLUMNS"] = "100000"
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
