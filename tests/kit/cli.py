"""The product as its users start it: a process of its own, with a repository, state and scratch in one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit import nursery

ROOT = Path(__file__).parents[2]
TIMEOUT = 240.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended; a negative status is the signal that ended it."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """The error object: the last line on stderr (progress stands before it)."""
        return json.loads(self.stderr.splitlines()[-1])


class Cli:
    """Runs ``headstart --json ...``."""

    def __init__(self, folder: Path, password: str = "correct horse", **environment: str) -> None:
        self.repository = folder / "repository"
        self.state = folder / "state"
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HEADSTART_REPOSITORY": str(self.repository),
            "HEADSTART_STATE": str(self.state),
            "HEADSTART_SCRATCH": str(self.scratch),
            "HEADSTART_CACHE": str(folder / "cache"),
            "HEADSTART_PASSWORD": password,
            **environment,
        }

    def run(
        self,
        *arguments: str | Path,
        expect: int | None = 0,
        kill_before: str | None = None,
        kill_after: str | None = None,
        timeout: float = TIMEOUT,
    ) -> Outcome:
        """Run to the end; fails unless it ended with the expected status (None: any).

        ``kill_before`` and ``kill_after`` name a place as ``tests.kit.crash`` does, ``module:name:call``: the
        process kills itself there, and the expected status is that of SIGKILL.
        """
        faults = []
        for option, place in (("--before", kill_before), ("--after", kill_after)):
            if place is not None:
                faults += [option, place]
                expect = -9
        outcome = self._outcome(arguments, faults, timeout)
        if expect is not None and outcome.status != expect:
            raise AssertionError(
                f"headstart {' '.join(map(str, arguments))} ended with {outcome.status}, not {expect}:\n"
                f"{outcome.stdout}{outcome.stderr}"
            )
        return outcome

    def count_calls(self, places: Sequence[str], *arguments: str | Path) -> Mapping[str, int]:
        """Run to the end, and how often each place (``module:name``) was called."""
        counts = self.scratch.with_name("counts.json")
        faults = ["--counts", str(counts)]
        for place in places:
            faults += ["--count", place]
        outcome = self._finish(self.start(*arguments, faults=faults), TIMEOUT)
        assert outcome.status == 0, outcome.stderr
        found: dict[str, int] = json.loads(counts.read_text())
        return found

    def _outcome(self, arguments: Sequence[str | Path], faults: Sequence[str], timeout: float) -> Outcome:
        return self._finish(self.start(*arguments, faults=faults), timeout)

    def start(self, *arguments: str | Path, faults: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start it and return; the caller ends it."""
        program = ["tests.kit.crash", *faults, "--"] if faults else ["headstart.cli.main"]
        return subprocess.Popen(
            [sys.executable, "-m", *program, "--json", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _finish(process: subprocess.Popen[str], timeout: float) -> Outcome:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"no end after {timeout} s:\n{stdout}{stderr}") from None
        return Outcome(process.returncode, stdout, stderr)


class QuickCli(Cli):
    """``run`` begins where the modules are loaded (``nursery``), unless there are faults: for what a verb does. How the
    program begins and ends is in tests/cli/test_contract.py."""

    def _outcome(self, arguments: Sequence[str | Path], faults: Sequence[str], timeout: float) -> Outcome:
        if faults:
            return super()._outcome(arguments, faults, timeout)
        done = nursery.run(["--json", *map(str, arguments)], self.environment, ROOT, timeout)
        return Outcome(done.returncode, done.stdout, done.stderr)
