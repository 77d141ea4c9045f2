"""Putting the agent and a service for it into a running guest, and taking them out. Done again, it does the same
again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart import errors
from headstart.guest import package
from headstart.guest.shells import Ran, Shell

FILE = "/usr/local/lib/headstart/agentd"
_HERE = Path(__file__).parent
_NAME = "headstart-agentd"


@dataclass(frozen=True, slots=True)
class Service:
    """How the guest starts programs at boot. ``start``: at once too, and anew if it runs; ``stop``: at once, and at
    boot no more; ``runs``: says whether it still does. ``settings``: where whoever keeps the guest may change it.
    ``forget``: when it is gone."""

    name: str
    template: str
    path: str
    mode: int
    start: str
    stop: str
    runs: str
    settings: str
    forget: str


SERVICES = {
    "systemd": Service(
        "systemd",
        f"{_NAME}.service",
        f"/etc/systemd/system/{_NAME}.service",
        0o644,
        f"systemctl daemon-reload && systemctl enable {_NAME} && systemctl restart {_NAME}",
        f"systemctl stop {_NAME}; systemctl disable {_NAME}",
        f"systemctl is-active {_NAME}",
        f"/etc/systemd/system/{_NAME}.service.d",
        f"systemctl daemon-reload; systemctl reset-failed {_NAME}",
    ),
    "openrc": Service(
        "openrc",
        f"{_NAME}.openrc",
        f"/etc/init.d/{_NAME}",
        0o755,
        f"rc-update add {_NAME} default && rc-service {_NAME} restart",
        f"rc-service {_NAME} stop; rc-update delete {_NAME} default",
        f"rc-service {_NAME} status",
        f"/etc/conf.d/{_NAME}",
        ":",
    ),
}

#: The last one is RHEL's and its likes', where there is no other.
_PROBE = """
echo uid=$(id -u)
for each in python3 /usr/bin/python3 /usr/libexec/platform-python; do
    found=$(command -v $each) || continue
    echo seen=$found
    "$found" -c 'import sys; sys.exit(sys.version_info < (3, 6))' && echo python=$found && break
done
if [ -d /run/systemd/system ]; then echo init=systemd
elif command -v rc-service > /dev/null; then echo init=openrc
fi
"""

#: The last step: whole, or not there. ``$1`` checks what has arrived.
_PUT = """
set -e
umask 022
mkdir -p {folder}
cat > {path}.put
[ $(wc -c < {path}.put) = {size} ] || {{ echo 'it has not arrived whole' >&2; exit 1; }}
chmod {mode:o} {path}.put
{check}
sync
mv -f {path}.put {path}
"""

#: What was there is told. ``{file}.*`` is left by an installation, or a renewal, that was cut short.
_REMOVE = """
set -e
if [ -e {path} ]; then
    grep -qF '{mark}' {path} || {{ echo '{path} was not written by headstart agent install' >&2; exit 1; }}
    {{ {stop}; }} > /dev/null 2>&1 || :
    if {{ {runs}; }} > /dev/null 2>&1; then echo 'its service does not stop' >&2; exit 1; fi
fi
for each in {path} {settings} {file}; do [ ! -e $each ] || echo $each; done
rm -rf {path} {path}.put {settings}
{{ {forget}; }} > /dev/null 2>&1 || :
rm -f {file} {file}.*
[ ! -d {folder} ] || rmdir {folder} 2> /dev/null || :
sync
"""
#: A service of this name may be another's: docs/guest-only.md has one.
_MARK = "Written by `headstart agent install`."


@dataclass(frozen=True, slots=True)
class Installed:
    way: str
    python: str
    init: str


def install(shell: Shell) -> Installed:
    """Raises ``Unsupported`` if the guest lacks what is needed, before anything is put there."""
    found = _probe(shell)
    python = _python(found)
    if found.get("init") not in SERVICES:
        raise errors.Unsupported(
            "The guest has neither systemd nor OpenRC to start the agent with. Write it with 'headstart agent build',"
            " put it there, and have it started at boot, as root, by: python3 FILE"
        )
    service = SERVICES[found["init"]]
    check = f"{shlex.quote(python)} -I -S {FILE}.put --check"
    _require(_put(shell, FILE, 0o755, package.build(), check), "The agent cannot be put into the guest")
    text = (_HERE / service.template).read_text(encoding="utf-8")
    unit = text.replace("@PYTHON@", python).replace("@FILE@", FILE).encode()
    _require(_put(shell, service.path, service.mode, unit), "Its service cannot be put into the guest")
    _require(shell.run(f"{{ {service.start}; }} && sync"), "The agent is in the guest, but its service does not start")
    return Installed(shell.way, python, service.name)


def remove(shell: Shell) -> tuple[str, ...]:
    """The files that were there. Raises ``Unsupported`` before anything is changed."""
    found = _probe(shell)
    if found.get("init") not in SERVICES:
        raise errors.Unsupported(
            "The guest has neither systemd nor OpenRC, so no agent was installed in it by 'headstart agent install'."
        )
    service = SERVICES[found["init"]]
    folder = FILE.rpartition("/")[0]
    ran = shell.run(_REMOVE.format(**asdict(service), file=FILE, folder=folder, mark=_MARK))
    _require(ran, "The agent cannot be taken out of the guest")
    known = (service.path, service.settings, FILE)
    return tuple(line for line in ran.output.splitlines() if line in known)


def _probe(shell: Shell) -> Mapping[str, str]:
    ran = shell.run(_PROBE)
    lines = (line.partition("=") for line in ran.output.splitlines())
    found = {name: value for name, _, value in lines}
    if "uid" not in found:
        raise errors.Unsupported(f"The guest has no shell that does what it should: {ran.shown}.")
    if found["uid"] != "0":
        raise errors.Unsupported(
            "This needs root in the guest: log in as root, or as a user of whom sudo wants no password."
        )
    return found


def _python(found: Mapping[str, str]) -> str:
    if "python" not in found:
        old = f": {found['seen'][:40]!r} is too old" if "seen" in found else ""
        raise errors.Unsupported(
            f"The agent needs Python 3.6 or newer in the guest, which has none{old}. Install python3."
        )
    return found["python"]


def _put(shell: Shell, path: str, mode: int, content: bytes, check: str = "") -> Ran:
    folder = path.rpartition("/")[0]
    return shell.run(_PUT.format(folder=folder, path=path, size=len(content), mode=mode, check=check), content)


def _require(ran: Ran, failure: str) -> None:
    if ran.status != 0:
        raise errors.HeadstartError(f"{failure}: {ran.shown}")
