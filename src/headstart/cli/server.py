"""``headstart server``: the server of a fleet."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import errors
from headstart.cli import arguments, catalogue, password
from headstart.cli.session import Session
from headstart.restore.serving.places import Tcp

if TYPE_CHECKING:
    from headstart.server.limits import Rate
    from headstart.server.settings import Oidc, Settings

DATA = "/var/lib/headstart-server"
_MOST_WORKERS = 32
_OIDC = "HEADSTART_SERVER_OIDC_"


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "server", run, "Serve a fleet of hosts, until it is stopped.")
    _add_places(parser)
    parser.add_argument(
        "--listen", metavar="HOST[:PORT]", default="127.0.0.1", help="where hosts and people come to (port 8443)"
    )
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="of TLS, in PEM; without, one of its own")
    parser.add_argument("--key", metavar="FILE", type=Path, help="that of the certificate")
    parser.add_argument(
        "--name", metavar="NAME", action="append", default=[], help="of this server, for its own certificate"
    )
    parser.add_argument(
        "--plain", action="store_true", help="without TLS, behind something on this machine that speaks it"
    )
    parser.add_argument(
        "--notices-private", action="store_true", help="notices of tenants may lead into networks that are not public"
    )
    group = parser.add_subparsers(metavar="COMMAND", required=False)
    admin = arguments.add_verb(group, "admin", run_admin, "Make an admin of the site, or give one a new password.")
    _add_places(admin)
    admin.add_argument("name", metavar="NAME")
    catalogue.add(group, _add_places, _settings)
    work = arguments.add_verb(group, "work", run_work, "Work on the server's jobs, beside servers with PostgreSQL.")
    _add_places(work)


def _add_places(parser: argparse.ArgumentParser) -> None:
    options = argparse.SUPPRESS
    parser.add_argument("--data", metavar="DIR", default=options, help=f"what is the server's own (default: {DATA})")
    parser.add_argument(
        "--database", metavar="URL", default=options, help="postgresql://...; without, a file of SQLite in --data"
    )
    parser.add_argument(
        "--store", metavar="URL", default=options, help="where the objects are; without, a directory in --data"
    )
    parser.add_argument(
        "--second-store", metavar="URL", default=options, help="where copies of repositories are, at a second site"
    )
    parser.add_argument(
        "--workers", metavar="N", type=_count, default=options, help="jobs at a time in this process (default: 2)"
    )


def run(session: Session, given: argparse.Namespace) -> None:
    _log_to_stderr()
    chosen = _settings(given)
    if given.plain and chosen.address not in ("127.0.0.1", "::1"):
        raise errors.Usage("--plain listens on loopback alone: tokens and backups would travel in the open.")
    if (given.certificate is None) != (given.key is None):
        raise errors.Usage("--certificate and --key belong together.")
    with _loading():
        from headstart.server import serve

    def ready(url: str, fingerprint: str) -> None:
        told = f"Serving {url}, until this is interrupted (Ctrl-C)."
        if fingerprint:
            told += f" Its certificate is its own, with the SHA-256 {fingerprint}."
        session.output.result({"url": url, "fingerprint": fingerprint}, told)
        sys.stdout.flush()

    serve.serve(chosen, ready, plain=given.plain)


def run_admin(session: Session, given: argparse.Namespace) -> None:
    with _loading():
        from headstart.server import admins

    new = admins.put(_settings(given), given.name, password.ask_for_new(os.environ, password.NEW).decode())
    session.output.result(
        {"name": given.name, "new": new},
        f"{given.name} is {'now' if new else 'still'} an admin of the site, with that password.",
    )


def run_work(session: Session, given: argparse.Namespace) -> None:
    _log_to_stderr()
    with _loading():
        from headstart.server import engines

    def ready(name: str) -> None:
        session.output.result({"worker": name}, f"{name} works on jobs, until this is interrupted (Ctrl-C).")
        sys.stdout.flush()

    engines.work(_settings(given), ready)


def _count(told: str) -> int:
    """Raises ``argparse.ArgumentTypeError``."""
    if not told.isascii() or not told.isdecimal() or int(told) > _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{told!r} is not a number of jobs from 0 to {_MOST_WORKERS}")
    return int(told)


def _settings(given: argparse.Namespace) -> Settings:
    from headstart.server import settings

    data = Path(getattr(given, "data", None) or os.environ.get("HEADSTART_SERVER_DATA") or DATA).absolute()
    database = getattr(given, "database", None) or os.environ.get("HEADSTART_SERVER_DATABASE")
    listen = getattr(given, "listen", "127.0.0.1")
    # Port 0 is any that is free, as the result tells.
    place = replace(Tcp.parse(listen.removesuffix(":0")), port=0) if listen.endswith(":0") else _place(listen)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    known, strangers = (_rate(name) for name in ("KNOWN", "STRANGERS"))
    return settings.Settings(
        data=data,
        database=database or f"sqlite:///{data / 'server.db'}",
        store=getattr(given, "store", None) or os.environ.get("HEADSTART_SERVER_STORE") or str(data / "objects"),
        address=place.host,
        port=place.port,
        certificate=getattr(given, "certificate", None),
        key=getattr(given, "key", None),
        workers=getattr(given, "workers", 2),
        second_store=getattr(given, "second_store", None) or os.environ.get("HEADSTART_SERVER_SECOND_STORE"),
        names=tuple(getattr(given, "name", ()) if isinstance(getattr(given, "name", ()), list) else ()),
        notices_private=getattr(given, "notices_private", False),
        known_rate=known,
        stranger_rate=strangers,
        oidc=_oidc(),
    )


def _oidc() -> Oidc | None:
    """``HEADSTART_SERVER_OIDC_...``: all of them, or none. Raises ``Usage``."""
    from headstart.server import settings

    names = ("ISSUER", "CLIENT", "SECRET", "NAME", "URL")
    told = {name: os.environ.get(f"{_OIDC}{name}", "").strip() for name in names}
    if path := os.environ.get(f"{_OIDC}SECRET_FILE"):
        try:
            told["SECRET"] = Path(path).read_text().strip()
        except (OSError, ValueError) as error:
            raise errors.Usage(f"{_OIDC}SECRET_FILE: {path} cannot be read: {error}.") from error
    if not any(told.values()):
        return None
    missing = [f"{_OIDC}{name}" for name in names if not told[name]]
    if missing:
        raise errors.Usage(f"A provider of OpenID Connect takes also {' and '.join(missing)}.")
    for name in ("ISSUER", "URL"):
        if not settings.is_safe(told[name]) or len(told[name]) > 255:
            raise errors.Usage(f"{_OIDC}{name} is an address that begins with https://.")
    return settings.Oidc(told["ISSUER"], told["CLIENT"], told["SECRET"], told["NAME"], told["URL"].rstrip("/"))


def _rate(name: str) -> Rate:
    """``HEADSTART_SERVER_RATE_...=PER_SECOND[,BURST]``; 0: no limit."""
    from headstart.server import limits

    usual: limits.Rate = getattr(limits, name)
    text = os.environ.get(f"HEADSTART_SERVER_RATE_{name}")
    if not text:
        return usual
    try:
        per_second, _, burst = text.partition(",")
        return limits.Rate(float(per_second), float(burst or 10 * float(per_second)))
    except ValueError as error:
        raise errors.Usage(f"HEADSTART_SERVER_RATE_{name} is requests a second, like 200 or 200,1000.") from error


def _place(listen: str) -> Tcp:
    from headstart.server import settings

    return Tcp.parse(listen, port=settings.PORT)


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """What is loaded here stays to the end. To look through it for garbage again and again, then, later and at the
    end, is a third of the time of a start and an end. Raises ``Usage`` where packages are missing."""
    gc.disable()
    try:
        yield
    except ModuleNotFoundError as error:
        raise errors.Usage(catalogue.MISSING) from error
    finally:
        gc.freeze()
        gc.enable()


def _log_to_stderr() -> None:
    with _loading():
        from headstart.server import logs
    logs.begin(sys.stderr)
