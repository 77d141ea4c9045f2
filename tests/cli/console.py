"""The command line without ``--json``, in the ways that a shell has of starting it, and without a process."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from headstart.cli.main import main
from tests.kit.cli import ROOT, Cli, Outcome

SECONDS = 60.0
MAIN = ("-m", "headstart")


Environment = Mapping[str, str]


def run(
    cli: Cli, *arguments: str | Path, program: tuple[str, ...] = MAIN, environment: Environment | None = None
) -> Outcome:
    """Run to the end. ``environment`` comes on top; an empty value takes a variable away."""
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        env=_environment(cli, environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def inside(cli: Cli, *arguments: str | Path, environment: Environment | None = None) -> Outcome:
    """Like ``run``, in this process: for tables of many commands that end before they do anything."""
    with (
        mock.patch.dict(os.environ, _environment(cli, environment), clear=True),
        mock.patch.object(sys, "argv", ["headstart", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        status = main()
    return Outcome(status, stdout.getvalue(), stderr.getvalue())


def _environment(cli: Cli, changes: Environment | None) -> dict[str, str]:
    return {name: value for name, value in {**cli.environment, **(changes or {})}.items() if value}


def patched(code: str) -> tuple[str, ...]:
    """A program that is the command line with some of it replaced beforehand."""
    return ("-c", f"{textwrap.dedent(code)}\nimport sys\nfrom headstart.cli.main import main\nsys.exit(main())")


#: Writes of a restored file take a tenth of a second, so that there is time to interrupt.
SLOW_RESTORE = patched("""
    import time
    from headstart.restore import writing
    write_all = writing.write_all
    def slowly(*arguments):
        time.sleep(0.1)
        write_all(*arguments)
    writing.write_all = slowly
""")

#: Says so when it comes to load a module that takes long, and then takes very long.
SLOW_START = patched("""
    import sys, time
    class Slow:
        def find_spec(self, name, *_):
            if name == "rich":
                print("loading", flush=True)
                time.sleep(1000)
    sys.meta_path.insert(0, Slow())
""")


def on_a_terminal(
    cli: Cli, *arguments: str | Path, answers: tuple[str, ...] = (), environment: Environment | None = None
) -> tuple[int, str]:
    """Run on a terminal of its own; each answer is typed after a prompt. Returns status and all that was shown."""
    command = [sys.executable, *MAIN, *map(str, arguments)]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, command, _environment(cli, environment) | {"TERM": "xterm"})
    shown = ""
    waiting = list(answers)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # EIO: the other end is gone
            break
        if waiting and shown.rstrip(" ").endswith(":"):
            os.write(terminal, f"{waiting.pop(0)}\n".encode())
            shown += "\n"
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown
