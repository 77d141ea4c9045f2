"""agentd's command line: ``python3 FILE`` finds its port by itself."""

import argparse
import os
import platform
import sys
from typing import Any, Dict, List, Optional

from headstart.agentd import asks, freezer, links, loop, priority, release, renewal
from headstart.agentd.session import Session


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
    parser = argparse.ArgumentParser(prog="headstart-agentd", description="Headstart's agent in the guest.")
    parser.add_argument("--port", metavar="DEVICE", help="the virtio-serial port (default: found by its name)")
    parser.add_argument("--check", action="store_true", help="tell the release and end")
    given = parser.parse_args(arguments)
    if given.check:
        print(renewal.checked(sources))
        return 0
    freezer.recover()
    try:
        link = links.Port(given.port or links.find_port())
    except OSError as error:
        print("headstart-agentd: %s" % error, file=sys.stderr)
        return 1
    priority.lower()
    renewing = renewal.Renewal(renewal.Program())
    handlers = dict(asks.HANDLERS, **renewing.handlers())
    session = Session(handlers, asks.read, renewing.take, lambda: welcome(sources), lambda told: True)
    loop.serve(link, session)
    return 0
