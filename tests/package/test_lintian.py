"""Debian's own critic finds nothing in the packages but what an override in ``deploy/debian`` gives a reason for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "dist"

pytestmark = [pytest.mark.package, pytest.mark.timeout(1500)]


def test_lintian_is_content() -> None:
    made = sorted(DIST.glob("*.deb"))
    assert made, "there are no packages in dist/: make package"
    command = ["lintian", "--allow-root", "--display-info", "--fail-on", "error,warning,info", *map(str, made)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
