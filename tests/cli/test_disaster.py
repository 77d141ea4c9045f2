"""The host is gone: another machine, where nobody has ever run the program, with nothing but address and password."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import repository, store
from tests.kit import stores
from tests.kit.gateway import Gateway
from tests.kit.weed import environment
from tests.restore import stored

CONTENT = stored.content(1, 0, 2, 3, tail=512)
NOBODY = 65534


@pytest.fixture
def machine() -> Iterator[Path]:
    """With an empty home, and for nobody but its owner."""
    with tempfile.TemporaryDirectory(prefix="headstart-", dir="/tmp") as folder:
        home = Path(folder, "home")
        home.mkdir()
        Path(folder).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        yield home


def alone(home: Path, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headstart", *map(str, words)],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": str(home), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        # Root would have what is under /var.
        user=NOBODY if os.geteuid() == 0 else None,
    )


def fill(url: str) -> str:
    with repository.create(store.open_store(url), stores.PASSWORD, cost=stores.QUICK) as repo:
        return stored.store_snapshot(repo, {"system": CONTENT}, {"definition": b"<domain/>"}, "web").id


def check(home: Path, made: str, **variables: str) -> None:
    variables["HEADSTART_PASSWORD"] = stores.PASSWORD.decode()
    shown = alone(home, "snapshots", **variables)
    assert shown.returncode == 0 and shown.stderr == "" and made[:12] in shown.stdout
    done = alone(home, "restore", "web@latest", home / "out", "--format", "raw", **variables)
    assert done.returncode == 0, done.stderr
    assert (home / "out" / "system.raw").read_bytes() == CONTENT
    assert [path.name for path in home.iterdir()] == ["out"], "neither state nor configuration was made"


def test_restores_from_a_directory_that_may_only_be_read(machine: Path) -> None:
    """That may only be read, too: an old disk, mounted read-only."""
    place = machine.parent / "repository"
    made = fill(str(place))
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    check(machine, made, HEADSTART_REPOSITORY=str(place))


def test_restores_from_a_bucket(machine: Path, gateway: Gateway, bucket: str, place: str) -> None:
    url = f"s3://{bucket}/{place}"
    check(machine, fill(url), HEADSTART_REPOSITORY=url, **environment(gateway.url))


@pytest.mark.parametrize(
    ("variables", "status", "said"),
    [
        ({}, 2, "Name the repository with --repository or HEADSTART_REPOSITORY"),
        ({"HEADSTART_REPOSITORY": "{there}"}, 2, "Set HEADSTART_PASSWORD_FILE"),
        ({"HEADSTART_REPOSITORY": "{there}", "HEADSTART_PASSWORD": "wrong"}, 12, "No key of this repository opens"),
        ({"HEADSTART_REPOSITORY": "{there}x", "HEADSTART_PASSWORD": "x"}, 10, "There is no repository in"),
        ({"HEADSTART_REPOSITORY": "s3://bucket/x", "HEADSTART_PASSWORD": "x"}, 2, "There are no credentials for S3"),
    ],
)
def test_what_is_missing_is_told(machine: Path, variables: dict[str, str], status: int, said: str) -> None:
    there = machine.parent / "repository"
    fill(str(there))
    for path in (there, *there.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    given = {name: value.replace("{there}", str(there)) for name, value in variables.items()}
    given["AWS_EC2_METADATA_DISABLED"] = "true"
    done = alone(machine, "restore", "web@latest", machine / "out", **given)
    assert (done.returncode, list(machine.iterdir())) == (status, [])
    assert said in done.stderr
