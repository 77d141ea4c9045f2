"""A snapshot in a shared repository whose names somebody else has chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart import repository
from headstart.repository import snapshot
from headstart.repository.manifest import Attachment, Disk, Manifest
from headstart.store.local import LocalStore
from tests.cli import console
from tests.kit.cli import Cli
from tests.kit.evil import EVIL

#: As JSON can hold it.
WORD = EVIL.replace("\ud800", "") + "\nheadstart: note: forged"
ID = "ab" * 16
#: Whatever it is, it is not there.
NOWHERE = bytes(32)
#: And the status that they end with.
VERBS: tuple[tuple[int, str, *tuple[str, ...]], ...] = (
    (0, "snapshots"),
    (13, "verify"),
    (13, "verify", "--rolling", "1"),
    (0, "diff", ID, ID),
    (3, "stats"),
    (3, "copy", "--to", "target"),
    (13, "restore", ID, "out"),
    (15, "restore", ID, "out", "--disk", "other"),
)


def test_its_names_are_shown_and_not_obeyed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    password = cli.environment["HEADSTART_PASSWORD"].encode()
    cli.run("init")
    console.inside(cli, "init", environment={"HEADSTART_REPOSITORY": "target"})
    disk = Disk(WORD, 4096, WORD, NOWHERE, 65536, WORD, WORD, {WORD: WORD})
    attached = Attachment(WORD, WORD, 5, (NOWHERE,))
    with repository.open(LocalStore(cli.repository), lambda: password) as repo:
        snapshot.publish(repo, Manifest(ID, WORD, 5.0, None, WORD, WORD, WORD, (disk,), (attached,), {}))
    shown = []
    for status, *words in VERBS:
        for flags in ((), ("-v",), ("--json",)):
            told = console.inside(cli, *flags, *words)
            assert told.status == status, told
            for line in (told.stdout + told.stderr).splitlines():
                assert line.isprintable(), line
                assert not line.startswith("headstart: note: forged")
                assert "--json" not in flags or json.loads(line)
            shown.append(told.stdout + told.stderr)
    assert all("?[2J" in each for each in shown[:2]), shown
    assert json.dumps(WORD) in shown[2], "JSON is exact"
