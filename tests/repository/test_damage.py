"""Whatever happens to an object: it is noticed and named, and no wrong byte is ever given out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import errors, repository
from headstart.repository import attachment, draft, snapshot, verify
from headstart.repository.manifest import Manifest
from headstart.store.memory import MemoryStore
from tests.kit.stores import PASSWORD, QUICK
from tests.repository import samples
from tests.repository.samples import Image, block, noise

SMALL = 4096


def image(seed: int) -> Image:
    contents = {number: block(seed + number, SMALL) for number in range(0, 12, 2)}
    contents |= {number: noise(seed + number, SMALL) for number in (20, 21, 5000)}
    return Image(6000 * SMALL, contents)


IMAGES = {"vda": image(1000), "vdb": image(2000)}


def original() -> tuple[MemoryStore, list[Manifest]]:
    """Two snapshots, the second of one disk changed, and a draft: each kind of object at least twice."""
    store = MemoryStore()
    with repository.create(store, PASSWORD, block_size=SMALL, cost=QUICK) as repo:
        first = samples.add_snapshot(repo, IMAGES, created=1.0)
        second = samples.add_snapshot(repo, {"vda": image(3000)}, vm="db", created=2.0)
        begun = draft.begin(repo, "web", "host", 1.0, draft_id="d" * 32)
        draft.record(repo, begun, 1, 2.0, [], {"vda": [(1, bytes(32))]})
    return store, [first, second]


STORE, MANIFESTS = original()
OBJECTS = dict(sorted(STORE.list("")))
KINDS = sorted({name.split("/")[0] for name in OBJECTS})
#: Names are random; those of the tests must not be.
EACH = pytest.mark.parametrize("victim", OBJECTS, ids=[f"{n}-{name.split('/')[0]}" for n, name in enumerate(OBJECTS)])


def damaged_copy(change: Callable[[bytes], bytes | None], victim: str) -> MemoryStore:
    copy = MemoryStore()
    for name in OBJECTS:
        data: bytes | None = STORE.read(name)
        if name == victim:
            data = change(STORE.read(name))
        if data is not None:
            copy.create(name, data)
    return copy


def expected(manifest: Manifest) -> dict[str, Image]:
    return IMAGES if manifest is MANIFESTS[0] else {"vda": image(3000)}


def everything_read(store: MemoryStore) -> Iterator[str]:
    """The names of all objects that anything complains about. Asserts that what is read is right."""
    try:
        repo = repository.open(store, lambda: PASSWORD, to_mend=True)
    except errors.Damaged as error:
        yield str(error.facts["object"])
        return
    with repo:
        for manifest in MANIFESTS:
            try:
                assert snapshot.load(repo, manifest.id) == manifest
            except (errors.Damaged, errors.NotFound) as error:
                yield str(error.facts.get("object", snapshot.key_of(manifest.id)))
            for disk in manifest.disks:
                with contextlib.suppress(errors.Damaged):
                    assert samples.restored(repo, disk) == expected(manifest)[disk.name]
            for attached in manifest.attachments:
                with contextlib.suppress(errors.Damaged):
                    assert attachment.read_attachment(repo, attached) == b"-m 256"
        yield from (finding.object for finding in verify.verify_all(repo, lambda done, total: None).findings)
        for found, unreadable in [samples.all_drafts(repo)]:
            yield from (str(error.facts["object"]) for error in unreadable)
            for begun in found:
                try:
                    list(draft.records(repo, begun.draft.id))
                except errors.Damaged as error:
                    yield str(error.facts["object"])


def test_the_original_is_sound() -> None:
    assert KINDS == ["config", "drafts", "indexes", "keys", "packs", "snapshots", "twins"]
    assert list(everything_read(STORE)) == []


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**30), st.integers(0, 2**30), st.integers(0, 7))
def test_any_flipped_bit_is_noticed_and_named(kind: str, which: int, where: int, bit: int) -> None:
    names = [name for name in OBJECTS if name.split("/")[0] == kind]
    victim = names[which % len(names)]

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[where % len(data)] ^= 1 << bit
        return bytes(changed)

    assert victim in set(everything_read(damaged_copy(flip, victim)))


@EACH
@pytest.mark.parametrize("cut", ["last byte", "half", "everything"])
def test_any_cut_is_noticed_and_named(victim: str, cut: str) -> None:
    def shorten(data: bytes) -> bytes:
        return data[: {"last byte": len(data) - 1, "half": len(data) // 2, "everything": 0}[cut]]

    assert victim in set(everything_read(damaged_copy(shorten, victim)))


@EACH
def test_bytes_at_the_end_are_noticed(victim: str) -> None:
    assert victim in set(everything_read(damaged_copy(lambda data: data + b"x", victim)))


def always(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


@EACH
def test_any_swap_is_noticed_and_named(victim: str) -> None:
    """Every object of ours in the place of another of its kind, or for want of one, of any."""
    kind = victim.split("/")[0]
    others = [name for name in OBJECTS if name != victim and name.split("/")[0] == kind] or [
        name for name in OBJECTS if name != victim
    ]
    for other in others:
        if STORE.read(other) == STORE.read(victim):
            continue  # config and its twin
        assert victim in set(everything_read(damaged_copy(always(STORE.read(other)), victim)))


@EACH
def test_what_is_missing(victim: str) -> None:
    complaints = set(everything_read(damaged_copy(lambda data: None, victim)))
    if victim.startswith("keys/"):
        assert complaints == {"keys/"}
    elif victim == f"drafts/{'d' * 32}/00000001":
        assert complaints == set(), "as if the round had not been: its host knows better"
    else:
        assert victim in complaints
