"""The parser: global options, which may stand before or after the verb, and one subparser for each verb."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from headstart import __version__, errors
from headstart.cli.session import Session

Run: TypeAlias = Callable[[Session, argparse.Namespace], None]
Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Mistakes are errors like all others."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise errors.Usage(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


def _shared() -> Parser:
    """Options of every parser. They have no default, so that one parser does not undo what another has read."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options = parser.add_argument_group("options of every command")
    options.add_argument(
        "--repository",
        metavar="URL",
        help="where the backups are: a path, file:///path, s3://bucket/prefix, gs://, az://,"
        " https://server/name;"
        " {host} in it is this host's name",
    )
    options.add_argument("--state", metavar="DIR", help="what this host remembers of its VMs")
    options.add_argument("--scratch", metavar="DIR", help="scratch and spool files; must be on a local disk")
    options.add_argument("--cache", metavar="DIR", help="what is known of the repository's index; may be lost")
    options.add_argument("--json", action="store_true", help="one JSON object on stdout, lines of JSON on stderr")
    options.add_argument("-v", "--verbose", action="store_true", help="tell more on stderr")
    return parser


def new_parser() -> tuple[Parser, Verbs]:
    parser = Parser(
        prog="headstart",
        description="Back up running QEMU VMs with a head start.",
        epilog="The password comes from HEADSTART_PASSWORD, HEADSTART_PASSWORD_FILE, HEADSTART_PASSWORD_COMMAND "
        "or the terminal.",
        parents=[_shared()],
    )
    parser.add_argument("--version", action="version", version=f"headstart {__version__}")
    return parser, parser.add_subparsers(metavar="COMMAND", required=True)


def add_verb(verbs: Verbs, name: str, run: Run, summary: str) -> Parser:
    parser = verbs.add_parser(name, help=summary, description=summary, parents=[_shared()])
    parser.set_defaults(run=run)
    return parser


def add_group(verbs: Verbs, name: str, summary: str) -> Verbs:
    """A verb that has verbs of its own."""
    parser = verbs.add_parser(name, help=summary, description=summary, parents=[_shared()])
    return parser.add_subparsers(metavar="COMMAND", required=True)
