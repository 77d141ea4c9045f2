"""The program: parse, run the verb, and turn whatever happens into an exit status."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from collections.abc import Iterable, Sequence

from headstart import __version__, errors
from headstart.cli import arguments, flags, signals
from headstart.cli.output import Output
from headstart.cli.session import Session
from headstart.cli.settings import settings
from headstart.store import credentials, membership

_log = logging.getLogger("headstart")

#: The module of each verb. Only those are loaded of which the command line speaks: all of them take half a second.
VERBS = {
    "init": "init",
    "key": "key",
    "vm": "vm",
    "agent": "agent",
    "appliance": "appliance",
    "identify": "identify",
    "trim": "trim",
    "precopy": "precopy",
    "backup": "backup",
    "snapshots": "snapshots",
    "diff": "diff",
    "stats": "stats",
    "verify": "verify",
    "repair": "repair",
    "restore": "restore",
    "rollback": "rollback",
    "boot": "boot",
    "rehearse": "rehearse",
    "proof": "rehearse",
    "serve": "serve",
    "copy": "copy",
    "export": "transport",
    "import": "transport",
    "ls": "ls",
    "cp": "cp",
    "find": "find",
    "versions": "versions",
    "mount": "mount",
    "forget": "forget",
    "gc": "gc",
    "protect": "protect",
    "unprotect": "protect",
    "tag": "tag",
    "config": "config",
    "run": "run",
    "status": "status",
    "doctor": "doctor",
    "pause": "pause",
    "resume": "pause",
    "cancel": "pause",
    "history": "history",
    "simulate": "simulate",
    "bench": "bench",
    "server": "server",
    "join": "join",
    "leave": "join",
    "completion": "completion",
}


def run(given: Sequence[str]) -> int:
    """Returns the exit status."""
    output = Output(flags.has(given, "--json"), flags.has(given, "-v", "--verbose"))
    try:
        with signals.as_interrupts():
            _run(given, output)
    except KeyboardInterrupt as error:
        told = errors.Interrupted("Interrupted.")
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return output.error(told)
    except errors.HeadstartError as error:
        return output.error(error)
    except Exception as error:
        return output.unexpected(error)
    finally:
        output.close()
    return 0


def _run(given: Sequence[str], output: Output) -> None:
    parsed = parser_of(_modules(given)).parse_args(given)
    chosen = settings(parsed, os.environ)
    # For the store, in this process and those that it starts.
    os.environ.setdefault(membership.PATH, str(chosen.state / membership.FILE))
    url = None if chosen.url is None else credentials.shown(chosen.url)
    _log.info("version %s, %s", __version__, dataclasses.replace(chosen, url=url))
    parsed.run(Session(chosen, output), parsed)


def parser_of(modules: Iterable[str] = tuple(dict.fromkeys(VERBS.values()))) -> arguments.Parser:
    """The parser with the verbs of these modules; of all, if none are named."""
    parser, verbs = arguments.new_parser()
    for module in modules:
        importlib.import_module(f"headstart.cli.{module}").add(verbs)
    return parser


def _modules(given: Sequence[str]) -> list[str]:
    """Of the verbs that are among the words; of all where none is, for the help."""
    named = {VERBS[word] for word in given if word in VERBS}
    return [module for module in dict.fromkeys(VERBS.values()) if module in named or not named]
