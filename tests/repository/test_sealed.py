"""A pack can be checked by who cannot read what is in it: every frame counts, and so does the name."""

from __future__ import annotations

import pytest

from headstart import errors
from headstart.repository import layout, pack, sealed
from headstart.repository.repo import Repository
from tests.kit import stores
from tests.repository import samples
from tests.repository.samples import noise


@pytest.fixture(scope="module")
def repo() -> Repository:
    return stores.new_repository()


@pytest.fixture(scope="module")
def name(repo: Repository) -> str:
    """Of a pack with several frames."""
    with repo.writer(samples.ignore) as running:
        samples.put(repo, running, {number: noise(number) for number in range(6)})
        running.flush()
    [pack_id] = running.packs
    return layout.PACKS + pack_id


def frames(repo: Repository, name: str, data: bytes) -> list[tuple[int, int]]:
    entries = pack.read_entries(repo.secrets, repo.store, bytes.fromhex(name.removeprefix(layout.PACKS)), len(data))
    found, offset = [], layout.PACK_START
    for length in entries.sealed_lengths:
        found.append((offset, length))
        offset += length
    return found


def test_a_whole_pack_passes(repo: Repository, name: str) -> None:
    sealed.check(repo.secrets, name, repo.store.read(name))


def test_a_change_of_any_frame_is_found_and_where(repo: Repository, name: str) -> None:
    data = repo.store.read(name)
    places = frames(repo, name, data)
    assert len(places) > 1
    for offset, length in places:
        for place in (offset, offset + length - 1):
            with pytest.raises(errors.Damaged, match=f"sealed at {offset} was changed"):
                sealed.check(repo.secrets, name, samples.flipped(data, [place]))


def test_what_is_no_pack_of_this_name_is_refused(repo: Repository, name: str) -> None:
    data = repo.store.read(name)
    other = layout.PACKS + "ab" * layout.OBJECT_ID_LENGTH
    for wanted, content in ((other, data), (name, data[:-1]), (name, b""), (name, samples.flipped(data, [2]))):
        with pytest.raises(errors.Damaged):
            sealed.check(repo.secrets, wanted, content)
    with pytest.raises(errors.Damaged, match="No pack can be called packs/short"):
        sealed.check(repo.secrets, "packs/short", data)


def test_the_change_of_a_frame_of_which_nothing_is_wanted_harms_nobody(repo: Repository, name: str) -> None:
    """``scan`` looks at the chunks it is asked for."""
    data = repo.store.read(name)
    wanted = [(each, repo.index.find(each)) for each in samples.ids_of(repo, *range(6))]
    found = [(chunk, location) for chunk, location in wanted if location is not None]
    [first, *_] = frames(repo, name, data)
    samples.rewrite(repo, name, samples.flipped(data, [first[0]]))
    told = list(sealed.scan(repo.secrets, repo.store, len(data), found))
    samples.rewrite(repo, name, data)
    assert len(told) == 6
    hurt = [chunk for (chunk, _), error in zip(found, told, strict=True) if error is not None]
    assert hurt == [chunk for chunk, location in found if location.frame.offset == first[0]]
    assert 0 < len(hurt) < 6
