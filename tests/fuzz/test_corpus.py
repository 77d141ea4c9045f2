"""Without the fuzzer: every input that is kept, and random changes of them. A finding names its input."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.fuzz import corpus
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

#: Changed inputs of each target, for so many seconds of CPU at most.
CHANGES, SECONDS = 150, 0.25
#: What decoders are wrong about.
_WORDS = (b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"[" * 3000, b"1e999", b"NaN", b"-1", b"\\ud800", b"\x1b[2J\n")


def test_every_target_has_a_corpus_and_the_other_way_round() -> None:
    assert sorted(path.name for path in corpus.FOLDER.iterdir()) == sorted(TARGETS)
    assert all(corpus.kept(name) for name in TARGETS)
    assert sum(path.stat().st_size for path in corpus.FOLDER.rglob("*")) < 500_000


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept(name: str) -> None:
    for data in (*(path.read_bytes() for path in corpus.kept(name)), *seeds()[name]):
        _run(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_random_changes(name: str) -> None:
    begun = time.process_time()
    for data in _changed(name):
        _run(name, data)
        if time.process_time() - begun > SECONDS:
            break


def _run(name: str, data: bytes) -> None:
    begun = time.process_time()
    try:
        TARGETS[name](data)
    except Exception as error:
        raise AssertionError(f"{name} for {data!r}") from error
    assert time.process_time() - begun < 5, data


def _changed(name: str) -> Iterator[bytes]:
    chance = random.Random(name)
    inputs = [*(path.read_bytes() for path in corpus.kept(name)), *seeds()[name]]
    for _ in range(CHANGES):
        data = bytearray(chance.choice(inputs))
        for _ in range(chance.randrange(1, 4)):
            _change(data, chance, inputs)
        yield bytes(data)


def _change(data: bytearray, chance: random.Random, inputs: list[bytes]) -> None:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(5):
        case 0 if place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        case 1:
            del data[place : place + chance.randrange(9)]
        case 2:
            data[place:place] = chance.choice(_WORDS)
        case 3:
            data[place : place + 4] = chance.choice(_WORDS)
        case _:
            other = chance.choice(inputs)
            data[place:] = other[chance.randrange(len(other) + 1) :]
