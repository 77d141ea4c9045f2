"""Commands of the user at the steps of a completion, with the facts in their environment."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart import errors

BEFORE_FREEZE = "before-freeze"
AFTER_THAW = "after-thaw"
BEFORE_RELEASE = "before-release"
AFTER_PUBLISH = "after-publish"

#: Seconds that a hook may take. While the point in time stands it costs the guest, so not for ever.
LIMITS = {BEFORE_FREEZE: 60.0, AFTER_THAW: 60.0, BEFORE_RELEASE: 900.0, AFTER_PUBLISH: 900.0}
EVENTS = tuple(LIMITS)

#: What hooks must not get: the way to the repository is not theirs.
_SECRET = re.compile(r"HEADSTART_(([A-Z]+_)?PASSWORD.*|TOKEN)")
_OUTPUT_SHOWN = 2000
#: What a killed hook has said is in the pipe already.
_LAST_WORDS_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Hook:
    event: str
    command: str


def parse(text: str) -> Hook:
    """``EVENT=COMMAND``; raises ``Usage``."""
    event, found, command = text.partition("=")
    if not found or event not in LIMITS or not command.strip():
        raise errors.Usage(f"A hook is EVENT=COMMAND with EVENT one of {', '.join(EVENTS)}, not {text!r}.")
    return Hook(event, command)


def run(hooks: Sequence[Hook], event: str, facts: Mapping[str, str]) -> None:
    """Run the hooks of an event in order; raises ``HookFailed`` at the first that fails or lasts too long."""
    for hook in hooks:
        if hook.event == event:
            _run(hook, facts)


def variable(text: str) -> str:
    """A disk's name as it stands in the name of an environment variable."""
    return re.sub(r"[^A-Za-z0-9]", "_", text).upper()


def _run(hook: Hook, facts: Mapping[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not _SECRET.fullmatch(name)}
    environment |= {"HEADSTART_EVENT": hook.event, **facts}
    with subprocess.Popen(
        ["/bin/sh", "-c", hook.command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMITS[hook.event])
        except BaseException as error:
            # Its children as well: a hook that leaves a reader behind would hold the point in time.
            # All may have ended just now, and been waited for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                how = f"took longer than {LIMITS[hook.event]:g} s and was ended"
                raise _failed(hook, how, _said_so_far(process)) from error
            raise
    if process.returncode != 0:
        raise _failed(hook, f"failed with status {process.returncode}", output)


def _said_so_far(process: subprocess.Popen[bytes]) -> bytes:
    """The output of a hook that was killed. Who left its session is still alive, and may hold the other end."""
    try:
        return process.communicate(timeout=_LAST_WORDS_SECONDS)[0]
    except subprocess.TimeoutExpired as error:
        return error.output or b""


def _failed(hook: Hook, how: str, output: bytes) -> errors.HookFailed:
    """Of much output the end is told: it says most."""
    said = output.decode(errors="replace").strip()[-_OUTPUT_SHOWN:]
    then = ", so nothing was backed up" if hook.event == BEFORE_FREEZE else ""
    return errors.HookFailed(f"The {hook.event} hook {how}{then}: {hook.command}\n{said}".rstrip())
