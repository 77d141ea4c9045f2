"""The program: parse, run the verb, and turn whatever happens into an exit status."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from headstart import __version__, errors
from headstart.cli import (
    agent,
    arguments,
    backup,
    boot,
    config,
    copy,
    cp,
    diff,
    doctor,
    find,
    flags,
    forget,
    gc,
    history,
    identify,
    init,
    key,
    ls,
    mount,
    pause,
    precopy,
    protect,
    rehearse,
    repair,
    restore,
    rollback,
    serve,
    signals,
    simulate,
    snapshots,
    stats,
    status,
    tag,
    transport,
    verify,
    versions,
    vm,
)
from headstart.cli import run as running
from headstart.cli.output import Output
from headstart.cli.session import Session
from headstart.cli.settings import settings

_log = logging.getLogger("headstart")

VERBS = (
    *(init, key, vm, agent, identify, precopy, backup),
    *(snapshots, diff, stats, verify, repair, restore, rollback, boot, rehearse, serve, copy, transport),
    *(ls, cp, find, versions, mount),
    *(forget, gc, protect, tag),
    *(config, running, status, doctor, pause, history, simulate),
)


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
    parser, verbs = arguments.new_parser()
    for verb in VERBS:
        verb.add(verbs)
    parsed = parser.parse_args(given)
    chosen = settings(parsed, os.environ)
    _log.info("version %s, %s", __version__, chosen)
    parsed.run(Session(chosen, output), parsed)
