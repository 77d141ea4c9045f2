"""Shell commands in a guest, as root: through QEMU's guest agent, or through SSH."""

from __future__ import annotations

import base64
import binascii
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from headstart import errors, plain

RUN_SECONDS = 120.0
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 15
#: Characters of the guest's that reach a person.
_SHOWN = 300
#: OpenSSH's own failure, see ssh(1).
_SSH_FAILED = 255
#: qga and sshd may start with less.
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH\n"


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended; what it said on stdout and stderr."""

    status: int
    output: str
    complaint: str

    @property
    def shown(self) -> str:
        """The last thing it said, for a person: the guest is not trusted with a terminal."""
        lines = (self.complaint.strip() or self.output.strip() or f"status {self.status}").splitlines()
        return plain.line(lines[-1], _SHOWN)


class Shell(Protocol):
    """A context manager. Raises ``Unreachable`` and ``Unsupported``."""

    #: How it is told: ``qga`` or ``ssh``.
    way: str

    def run(self, script: str, content: bytes = b"") -> Ran:
        """A script for ``sh``, which reads ``content``."""

    def __enter__(self) -> Shell: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Qga(Protocol):
    """QEMU's guest agent: ``headstart.wire.qga``, or through libvirt."""

    def execute(
        self,
        command: str,
        seconds: float,
        arguments: Mapping[str, Any] | None = None,
        attend: Callable[[], None] | None = None,
    ) -> Any:
        """``attend`` is called again and again while it waits, and may end that by what it raises."""

    def close(self) -> None: ...


class QgaShell:
    way = "qga"

    def __init__(self, qga: Qga) -> None:
        """Owns ``qga``."""
        self._qga = qga
        try:
            self._require_exec()
        except BaseException:
            self._qga.close()
            raise

    def _require_exec(self) -> None:
        told = self._qga.execute("guest-info", _ANSWER_SECONDS)
        commands = told.get("supported_commands") if isinstance(told, dict) else None
        allowed = [each.get("name") for each in _objects(commands) if each.get("enabled")]
        if not {"guest-exec", "guest-exec-status"} <= set(allowed):
            raise errors.Unsupported(
                "The guest agent (qga) is not allowed to run commands in the guest: guest-exec is disabled there, as by"
                " some distributions (/etc/sysconfig/qemu-ga: BLACKLIST_RPC, BLOCK_RPCS or FILTER_RPC_ARGS)."
                " Allow guest-exec and guest-exec-status there, or use --ssh."
            )

    def run(self, script: str, content: bytes = b"") -> Ran:
        started = self._qga.execute(
            "guest-exec",
            _ANSWER_SECONDS,
            {
                "path": "/bin/sh",
                "arg": ["-c", _PATH + script],
                "input-data": base64.b64encode(content).decode(),
                "capture-output": True,
            },
        )
        if not isinstance(started, dict) or not isinstance(started.get("pid"), int):
            raise errors.Unreachable("The guest agent (qga) answered nonsense to guest-exec.")
        return self._await(started["pid"])

    def _await(self, pid: int) -> Ran:
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            told = self._qga.execute("guest-exec-status", _ANSWER_SECONDS, {"pid": pid})
            if isinstance(told, dict) and told.get("exited"):
                status = told.get("exitcode")
                return Ran(
                    status if isinstance(status, int) else -1, _text(told.get("out-data")), _text(told.get("err-data"))
                )
            time.sleep(_POLL_SECONDS)
        raise errors.Unreachable(f"A command in the guest has not ended within {RUN_SECONDS:.0f} s.")

    def __enter__(self) -> QgaShell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._qga.close()


class SshShell:
    """OpenSSH's client with the user's own configuration and keys; it never asks anything."""

    way = "ssh"

    def __init__(self, host: str) -> None:
        """``host``: ``[USER@]HOST``, as ssh takes it."""
        if not host or host.startswith("-"):
            raise errors.Usage(f"{host!r} is no host for --ssh: give [USER@]HOST.")
        self._host = host

    def run(self, script: str, content: bytes = b"") -> Ran:
        whole = shlex.join(["sh", "-c", _PATH + script])
        # Who is not root may be able to become so without a password.
        become = 'become=; [ "$(id -u)" = 0 ] || ! sudo -n true 2> /dev/null || become="sudo -n"'
        options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
        command = ["ssh", *options, "--", self._host, shlex.join(["sh", "-c", f"{become}; $become {whole}"])]
        try:
            done = subprocess.run(command, input=content, capture_output=True, timeout=RUN_SECONDS)
        except FileNotFoundError as error:
            raise errors.Unsupported("There is no ssh on this host: install OpenSSH's client.") from error
        except subprocess.TimeoutExpired as error:
            raise errors.Unreachable(f"{self._host} has not answered for {RUN_SECONDS:.0f} s.") from error
        ran = Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        if ran.status == _SSH_FAILED:
            raise errors.Unreachable(
                f"ssh cannot log in at {self._host}: {ran.shown}. It must work without a password and with a known host"
                " key: try 'ssh -o BatchMode=yes' by hand."
            )
        return ran

    def __enter__(self) -> SshShell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(coded: Any) -> str:
    try:
        return base64.b64decode(coded or "").decode(errors="replace")
    except (TypeError, ValueError, binascii.Error):
        return ""
