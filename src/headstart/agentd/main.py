"""agentd's command line: ``python3 FILE`` finds its port by itself."""

import argparse
import os
import platform
import sys
from typing import Any, Dict, List, Optional, Tuple

from headstart.agentd import asks, filters, freezer, links, loop, points, priority, release, renewal, sockets
from headstart.agentd.links import Link, Port
from headstart.agentd.session import Session
from headstart.agentd.sockets import Admits, Server


def welcome(sources: str) -> Dict[str, Any]:
    """What the host is told at the beginning of a session."""
    return {
        "protocols": list(release.PROTOCOLS),
        "release": release.RELEASE,
        "sources": sources,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "boot": _boot(),
        "pid": os.getpid(),
    }


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def main(arguments: Optional[List[str]] = None, sources: str = "") -> int:
    """``sources``: digest of what the file was built from."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["filter"]:
        # Here, and not at the top: it is loaded for this alone.
        from headstart.agentd import filtersetup

        return filtersetup.main(words[1:])
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.tcp is None) != (given.keys is None):
        parser.error("--tcp and --keys need each other")
    if given.check:
        print(renewal.checked(sources))
        return 0
    freezer.recover()
    _recover_filters()
    try:
        link, admits = _link(given)
    except (OSError, ValueError) as error:
        print("headstart-agentd: %s" % error, file=sys.stderr)
        return 1
    priority.lower()
    renewing = renewal.Renewal(renewal.Program())
    handlers = dict(asks.HANDLERS, **renewing.handlers())
    session = Session(handlers, asks.read, renewing.take, lambda: welcome(sources), admits)
    loop.serve(link, session)
    return 0


def _recover_filters() -> None:
    """A guest that has none, or whose configuration is broken, is served all the same."""
    try:
        if filters.configured():
            points.recover()
            filters.doubt_missing()
    except filters.Wrong as error:
        print("headstart-agentd: %s" % error, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headstart-agentd",
        description="Headstart's agent in the guest. 'headstart-agentd filter' records changes there.",
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--port", metavar="DEVICE", help="the virtio-serial port (default: found by its name)")
    ways.add_argument("--vsock", action="store_true", help="listen on vsock, for the host alone")
    ways.add_argument("--tcp", metavar="ADDRESS:PORT", help="listen there, for who has the keys")
    parser.add_argument("--keys", metavar="DIR", help="for --tcp: made by 'headstart agent keys'")
    parser.add_argument("--check", action="store_true", help="tell the release and end")
    return parser


def _link(given: argparse.Namespace) -> Tuple[Link, Admits]:
    """Raises ``OSError`` and ``ValueError``."""
    if given.vsock:
        return Server(sockets.vsock(), sockets.is_host, _anybody), _anybody
    if given.tcp is not None:
        # Here, and not at the top: it is loaded for this alone.
        from headstart.agentd import tls

        keys = tls.Keys(given.keys)
        listener = sockets.tcp(given.tcp)
        return Server(listener, sockets.is_anybody, keys.admits, keys.wrap, tls.LATER), keys.admits
    return Port(given.port or links.find_port()), _anybody


def _anybody(told: Dict[str, Any]) -> bool:
    return True
