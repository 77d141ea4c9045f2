"""What ``era_invalidate`` prints, in pieces of any length."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.agentd import changes

#: As version 0.9 of thin-provisioning-tools prints it.
TEXT = b"""<blocks>
  <block block="3"/>
  <range begin="10" end = "13"/>
  <range begin="4294967295" end="4294967297"/>
</blocks>
"""
#: As version 1.1 prints the same: without a newline at the end.
LATER = b"""<blocks>
  <block block="3"/>
  <range begin="10" end="13"/>
  <range begin="4294967295" end="4294967297"/>
</blocks>"""
RANGES = [(3, 4), (10, 13), (4294967295, 4294967297)]


@pytest.mark.parametrize("length", [1, 7, 1000])
@pytest.mark.parametrize("text", [TEXT, LATER], ids=["0.9", "1.1"])
def test_all_ranges_are_told(text: bytes, length: int) -> None:
    assert list(changes.parse(text[at : at + length] for at in range(0, len(text), length))) == RANGES


@pytest.mark.parametrize("text", [b"<blocks>\n</blocks>\n", b"<blocks>\n</blocks>"], ids=["0.9", "1.1"])
def test_nothing_changed(text: bytes) -> None:
    assert list(changes.parse(iter([text]))) == []


@pytest.mark.parametrize(
    "text", [b"", TEXT[:-10], LATER[:-1], TEXT.replace(b'begin="10"', b'begin="ten"'), TEXT.replace(b"3", b"x")]
)
def test_what_is_cut_off_or_not_understood_is_no_answer(text: bytes) -> None:
    with pytest.raises(OSError, match="not understood"):
        list(changes.parse(iter([text])))


# -- how it is called

#: What each of them does with the arguments it gets.
VERSIONS = {
    "0.9, 1.0.2 to 1.0.4, from 1.2.2 on": 'test "$1" = --metadata-snapshot || exit 2',
    "1.0.7 to 1.2.1": 'test "$1" != --metadata-snapshot || { echo "a value is required" >&2; exit 2; }',
}


def program(folder: Path, text: str) -> None:
    (folder / changes.PROGRAM).write_text(f"#!/bin/sh\n{text}\n")
    (folder / changes.PROGRAM).chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(changes, "_FOLDERS", (str(tmp_path),))
    return tmp_path


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_called_as_it_wants(folder: Path, version: str) -> None:
    (folder / "text").write_bytes(LATER)
    program(folder, f'{VERSIONS[version]}\ntest "$2 $3 $4" = "--written-since 7 /dev/dm-0" && cat {folder}/text')
    assert list(changes.changed("/dev/dm-0", 7)) == RANGES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no current metadata snap >&2; exit 64", "ended with 64: no current metadata snap"),
        ("echo whatever >&2; exit 2", "ended with 2: whatever"),
        ("cat {folder}/text; exit 1", "ended with 1"),
        ("echo '<blocks>'", "not understood"),
    ],
)
def test_why_it_failed_is_told(folder: Path, text: str, said: str) -> None:
    (folder / "text").write_bytes(LATER)
    program(folder, text.format(folder=folder))
    with pytest.raises(OSError, match=said):
        list(changes.changed("/dev/dm-0", 7))
