"""``headstart run``: the daemon of this host."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from headstart import logentries, store
from headstart.cli import arguments, config, password, settings
from headstart.cli.session import Session
from headstart.store import membership

if TYPE_CHECKING:
    from headstart.host.daemon import Daemon
    from headstart.host.house import House


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "run", run, "Protect the VMs of this host by its policies, until it is stopped.")
    config.add_option(parser)


def run(session: Session, given: argparse.Namespace) -> None:
    from headstart.host import daemon
    from headstart.host.notify import Notifier

    read = config.load(given, os.environ, datetime.now(UTC))
    environment = config.beneath(os.environ, read.host)
    chosen = settings.settings(given, environment)
    if os.environ.get(membership.PATH) == str(session.settings.joined):
        # The configuration may say where the state is.
        os.environ[membership.PATH] = str(chosen.joined)
    _log_decisions()
    with _house(chosen, environment, read.host.appliances) as house:
        served = daemon.Daemon(
            house,
            chosen.state,
            read,
            lambda: config.load(given, os.environ, datetime.now(UTC)),
            _anew,
            Notifier(os.environ),
            joined=Path(os.environ[membership.PATH]),
        )
        with _signals(served):
            if not served.serve():
                # Python waits for threads that hang in the store, or in QEMU.
                sys.stderr.flush()
                os._exit(0)


@contextlib.contextmanager
def _house(chosen: settings.Settings, environment: Mapping[str, str], appliances: tuple[str, ...]) -> Iterator[House]:
    from headstart.host import house
    from headstart.host.slots import Slots
    from headstart.host.tally import Tally
    from headstart.host.vault import Vault
    from headstart.load.bucket import Bucket
    from headstart.state.journal import Journal
    from headstart.state.series import Series

    with Journal.open(chosen.state) as journal:
        bucket = Bucket()
        vault = Vault(
            lambda: store.open_store(chosen.repository),
            lambda: password.ask(environment),
            bucket,
            chosen.cache,
            chosen.repository,
        )
        shared = (journal, Series(journal), vault, chosen.scratch, Slots(1), Slots(1), bucket, Tally(bucket))
        yield house.House(*shared, appliances=appliances)


def _log_decisions() -> None:
    """To stderr, which is the journal under systemd: with times where nobody else adds them."""
    handler = logging.StreamHandler(sys.stderr)
    stamped = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    handler.setFormatter(logentries.Entries(f"{stamped}%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@contextlib.contextmanager
def _signals(served: Daemon) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        served.stop()

    def reload(number: int, frame: FrameType | None) -> None:
        served.reload()

    before = [signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)]
    hung_up = signal.signal(signal.SIGHUP, reload)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, hung_up)
        for number, earlier in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, earlier)


def _anew() -> None:
    """The same program in the same process: whoever started it goes on with it. Threads end, locks are let go of."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
