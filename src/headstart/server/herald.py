"""Sends a message through apprise, as a process of its own: ``python -P -m headstart.server.herald``.

Whoever names an address makes this machine connect to it, and some of apprise's options name files. So what a tenant
names is parsed and sent here, apart from the server: with few schemes, and under a hook of Python's that looks at every
connection after names were looked up and redirections were followed. Addresses that are not of the public network,
files, and other programs are refused. However it hangs or grows, the server goes on.

Reads one object of JSON: ``urls``; ``title`` and ``body``, or ``check``; ``private``: other networks are allowed.
Writes ``results``: of each URL why it failed; empty: it did not.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import logging
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

import apprise

from headstart.server import heralds

_MEMORY = 2 << 30
_PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.forkpty", "os.spawn")
_TO = ("socket.connect", "socket.sendto", "socket.sendmsg")
#: Of IPv6, all that is given out for the public network. What stands for an address of IPv4 (but for 6to4 and Teredo,
#: which are within it), for a site, or for nothing yet is not.
_PUBLIC, _6TO4 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("2002::/16")


class Refused(PermissionError):
    """Not sent: it would have gone where it must not."""


def is_public(text: str) -> bool:
    """Whether an address is one that anybody in the world may mean; a name is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found not in _PUBLIC or found in _6TO4 or found.teredo is not None:
            return False
    return found.is_global and not found.is_multicast


class Guard:
    """Once added to Python's hooks it cannot be taken away again."""

    def __init__(self, private: bool) -> None:
        self._private = private
        roots = {sys.prefix, sys.base_prefix, *sys.path, "/usr/share/zoneinfo"}
        self._roots = tuple(root for root in (os.path.realpath(each) for each in roots if each) if root != "/")
        self.refused = ""

    def __call__(self, event: str, told: tuple[Any, ...]) -> None:
        if event in _TO:
            self._require_public(told[-1])
        elif event == "open":
            self._require_ours(told[0], told[1])
        elif event in _PROGRAMS:
            self._refuse("It would have started a program.")

    def _require_public(self, address: Any) -> None:
        if address is None:
            return  # of a socket that is connected
        if isinstance(address, tuple) and address:
            if is_public(str(address[0])) or self._private:
                return
            self._refuse("It leads into a network that is not public, which the site does not allow.")
        self._refuse("It leads to something on the server itself.")

    def _require_ours(self, path: Any, mode: Any) -> None:
        if isinstance(path, int) or str(path) in ("/dev/null", "/dev/urandom"):
            return
        name = os.path.realpath(os.fsdecode(path))
        inside = any(name.startswith(f"{root}{os.sep}") for root in self._roots)
        if not inside or (isinstance(mode, str) and set(mode) & set("wax+")):
            self._refuse("It would have read or written a file of the server's.")

    def _refuse(self, why: str) -> None:
        self.refused = why
        raise Refused(why)


def main() -> None:
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    last = _Last()
    logging.getLogger("apprise").addHandler(last)
    # Proxies would connect in our stead, to anywhere.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    sys.dont_write_bytecode = True
    guard = Guard(bool(asked.get("private")))
    sys.addaudithook(guard)
    socket.setdefaulttimeout(10)
    results = []
    for url in asked["urls"]:
        guard.refused = last.told = ""
        results.append(_one(url, asked, guard, last))
    json.dump({"results": results}, sys.stdout)


class _Last(logging.Handler):
    told = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.told = record.getMessage()


def _one(url: str, asked: dict[str, Any], guard: Guard, last: _Last) -> str:
    if why := heralds.refusal(url):
        return why
    try:
        found = _made(url)
        if found is None:
            return guard.refused or "It is no address as apprise writes them."
        if asked.get("check"):
            return ""
        sent = found.notify(body=asked["body"], title=asked["title"], body_format=apprise.NotifyFormat.TEXT)
    except Exception as error:
        return guard.refused or f"It failed ({type(error).__name__})."
    return "" if sent else guard.refused or last.told[:200] or "It was not taken."


def _made(url: str) -> apprise.NotifyBase | None:
    """As ``Apprise.instantiate`` makes it; but that loads two hundred plugins first, in a second and a half, with all
    that those load. None: it is no address as apprise writes them."""
    asset = apprise.AppriseAsset(plugin_paths=[])
    place, _, name = heralds.PLUGINS[heralds.scheme(url)].rpartition(".")
    try:
        plugin = getattr(importlib.import_module(f"apprise.plugins.{place}"), name)
    except (ImportError, AttributeError):  # an apprise that has it elsewhere
        return apprise.Apprise.instantiate(url, asset=asset)
    told = plugin.parse_url(url.replace("/#", "/%23"))
    if not told:
        return None
    try:
        found: apprise.NotifyBase = plugin(**{**told, "asset": asset, "tag": set()})
    except Exception:  # whatever its constructor finds wrong
        return None
    return found if found.enabled else None


if __name__ == "__main__":
    assert Path(__file__).is_absolute()
    main()
