"""Which packs are read back: the arithmetic of turns, and what verify makes of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.repository import config as repository_config
from headstart.repository import selection, snapshot, verify
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.repository.selection import DAY, Rolling, Sample, Share, Since
from headstart.repository.writer import Cut
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

NOW = 1_700_000_000.0


def ids(count: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(16) for _ in range(count)]


class Remembers:
    """Like the state of a host."""

    def __init__(self) -> None:
        self.moments: dict[bytes, float] = {}

    def known(self) -> dict[bytes, float]:
        return dict(self.moments)

    def put(self, packs: Collection[bytes], moment: float) -> None:
        self.moments.update(dict.fromkeys(packs, moment))

    def forget(self, packs: Collection[bytes]) -> None:
        for pack_id in packs:
            del self.moments[pack_id]


def run(memory: Remembers, packs: Collection[bytes], now: float, days: int = 30) -> set[bytes]:
    """One run that finds everything whole."""
    rolling = Rolling(memory, days, now)
    chosen = rolling.of(packs)
    for pack_id in chosen:
        rolling.passed(pack_id)
    return chosen


def test_each_day_a_share_and_everything_once_in_thirty_days() -> None:
    memory, packs = Remembers(), ids(3000)
    days = [run(memory, packs, NOW + day * DAY) for day in range(30)]
    assert all(60 < len(each) < 140 for each in days), list(map(len, days))
    assert set.union(*days) == set(packs)
    assert sum(map(len, days)) == len(packs), "none twice"
    again = [run(memory, packs, NOW + day * DAY) for day in range(30, 60)]
    assert again == days


def test_nothing_is_read_twice_within_a_day() -> None:
    memory, packs = Remembers(), ids(300)
    assert run(memory, packs, NOW)
    assert run(memory, packs, NOW) == set()


def test_days_that_were_missed_are_made_up_for() -> None:
    memory, packs = Remembers(), ids(3000)
    first = run(memory, packs, NOW)
    late = run(memory, packs, NOW + 10 * DAY)
    assert 850 < len(late) < 1150 and not first & late
    assert first | late | run(memory, packs, NOW + 29 * DAY) == set(packs)


@pytest.mark.parametrize("pauses", [0.3, 1.0, 4.5])
def test_no_pack_waits_longer_than_the_days_and_a_pause(pauses: float) -> None:
    """Packs come and go meanwhile."""
    memory, packs, source = Remembers(), ids(200), random.Random(3)
    born = dict.fromkeys(packs, NOW)
    now = NOW
    while now < NOW + 100 * DAY:
        for pack_id in run(memory, packs, now):
            born[pack_id] = now
        assert all(now - moment <= 30 * DAY for moment in (born[pack_id] for pack_id in packs))
        now += pauses * DAY
        packs = packs[3:] + [source.randbytes(16) for _ in range(3)]
        born |= {pack_id: now for pack_id in packs if pack_id not in born}
    assert set(memory.moments) <= set(born)
    assert len(memory.moments) <= len(packs) + 3, "packs that are no more are forgotten"


def test_one_day_is_everything_each_day() -> None:
    memory, packs = Remembers(), ids(50)
    assert run(memory, packs, NOW, 1) == run(memory, packs, NOW + DAY, 1) == set(packs)


def test_a_clock_that_was_put_back() -> None:
    assert selection.due(bytes(16), NOW + DAY, NOW, 30)


@pytest.mark.parametrize(
    ("share", "packs", "wanted"),
    [(Share(3), 10, 3), (Share(30), 10, 10), (Share(part=0.05), 10, 1), (Share(part=0.5), 9, 5), (Share(3), 0, 0)],
)
def test_a_sample_is_as_large_as_its_share(share: Share, packs: int, wanted: int) -> None:
    here = set(ids(packs))
    chosen = Sample(share, random.Random(1)).of(here)
    assert len(chosen) == wanted and chosen <= here


def test_two_samples_differ() -> None:
    source, packs = random.Random(1), ids(100)
    assert Sample(Share(10), source).of(packs) != Sample(Share(10), source).of(packs)


# -- what verify makes of it


class Only:
    """These packs, and who is told of what."""

    def __init__(self, packs: set[bytes]) -> None:
        self.packs = packs
        self.told: list[bytes] = []

    def of(self, packs: Collection[bytes]) -> set[bytes]:
        return self.packs & set(packs)

    def passed(self, pack_id: bytes) -> None:
        self.told.append(pack_id)


@pytest.fixture
def many(small_packs: int) -> Repository:
    """Several packs of content, one of nodes."""
    repo = stores.new_repository(FaultyStore(MemoryStore()))
    contents = {number: noise(number) for number in range(20)}
    samples.add_snapshot(repo, {"vda": Image(20 * BLOCK, contents)})
    assert len(samples.packs_of(repo)) > 6
    return repo


def pack_with(repo: Repository, content: bytes) -> bytes:
    location = repo.index.find(repo.chunk_id(content))
    assert location is not None
    return location.pack_id


def flip(repo: Repository, content: bytes) -> bytes:
    location = repo.index.find(repo.chunk_id(content))
    assert location is not None
    name = f"packs/{location.pack_id.hex()}"
    samples.rewrite(repo, name, samples.flipped(repo.store.read(name), [location.frame.offset + 5]))
    return location.pack_id


def test_what_is_not_chosen_is_not_read(many: Repository) -> None:
    one, other = pack_with(many, noise(0)), flip(many, noise(19))
    assert one != other
    store = many.store
    assert isinstance(store, FaultyStore)
    whole = Only({one})
    begun = len(store.requests)
    report = verify.verify_all(stores.reopened(many), samples.silent, selection=whole)
    assert (report.findings, whole.told, report.packs) == ((), [one], 1)
    assert report.packs_there == len(samples.packs_of(many))
    assert ("read_range", f"packs/{other.hex()}") not in store.requests[begun:]
    progress: list[tuple[int, int]] = []
    verify.verify_all(many, lambda done, total: progress.append((done, total)), selection=whole)
    assert progress[-1][0] == progress[-1][1] < verify.verify_all(many, samples.silent).bytes


def test_what_is_damaged_does_not_count_as_read(many: Repository) -> None:
    damaged = flip(many, noise(19))
    everything = Only(many.index.packs())
    report = verify.verify_all(many, samples.silent, selection=everything)
    assert [found.object for found in report.findings] == [f"packs/{damaged.hex()}"]
    assert set(everything.told) == many.index.packs() - {damaged}


@pytest.mark.parametrize("cut", [None, 100])
def test_a_pack_that_is_missing_or_cut_is_found_by_every_run(many: Repository, cut: int | None) -> None:
    pack_id = pack_with(many, noise(19))
    name = f"packs/{pack_id.hex()}"
    data = many.store.read(name)
    many.store.delete(name)
    if cut is not None:
        many.store.create(name, data[:-cut])
    [made] = snapshot.all_manifests(many).manifests
    nothing = Only(set())
    [finding] = verify.verify_all(many, samples.silent, selection=nothing).findings
    assert finding.object == name and (cut or finding.touched[0].snapshot == made.id)
    assert nothing.told == []


def test_a_reading_goes_on_where_it_was(many: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_BATCH", 1)
    memory = Remembers()
    packs = many.index.packs()

    class Dies(Since):
        def passed(self, pack_id: bytes) -> None:
            super().passed(pack_id)
            if len(memory.moments) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify.verify_all(many, samples.silent, selection=Dies(memory, NOW, NOW))
    rest = Since(memory, NOW, NOW + 100)
    assert verify.verify_all(many, samples.silent, selection=rest).packs == len(packs) - 4
    assert set(memory.moments) == packs
    assert Since(memory, NOW, NOW + 200).of(packs) == set()
    assert Since(memory, NOW + 50, NOW + 200).of(packs) != set()


# -- without the content secret


@pytest.fixture
def server(many: Repository) -> Repository:
    return Repository(many.store, many.secrets.structure_alone(), _settings(many), encrypted=True)


def _settings(repo: Repository) -> repository_config.Config:
    return repository_config.Config(repo.secrets.repository_id, repo.block_size)


def test_a_server_reads_everything_and_opens_nothing(many: Repository, server: Repository) -> None:
    store = many.store
    assert isinstance(store, FaultyStore)
    before = store.bytes_read
    report = verify.verify_all(server, samples.silent)
    assert report.findings == ()
    assert store.bytes_read - before > sum(size for name, size in store.list("packs/"))
    whole = verify.verify_all(many, samples.silent)
    assert (report.chunks, report.bytes, report.packs) == (whole.chunks, whole.bytes, whole.packs)
    assert verify.verify(server, snapshot.all_manifests(server).manifests, samples.silent).findings == ()


def same_findings(one: verify.Report, other: verify.Report) -> bool:
    return [(each.object, each.touched) for each in one.findings] == [
        (each.object, each.touched) for each in other.findings
    ]


DAMAGES: dict[str, Callable[[Repository, str, bytes], None]] = {
    "a bit": lambda repo, name, data: samples.rewrite(repo, name, samples.flipped(data, [100])),
    "the digests": lambda repo, name, data: samples.rewrite(repo, name, samples.flipped(data, [len(data) - 60])),
    "cut": lambda repo, name, data: samples.rewrite(repo, name, data[:5000]),
    "missing": lambda repo, name, data: repo.store.delete(name),
    "zeroes": lambda repo, name, data: samples.rewrite(repo, name, data[:40] + bytes(4096) + data[4136:]),
    "other chunks": lambda repo, name, data: samples.rewrite(repo, name, data[:32] + os.urandom(4000) + data[4032:]),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("content", [noise(0), noise(19)])
def test_a_server_finds_what_who_has_everything_finds(
    many: Repository, server: Repository, how: str, content: bytes
) -> None:
    name = f"packs/{pack_with(many, content).hex()}"
    DAMAGES[how](many, name, many.store.read(name))
    by_server = verify.verify_all(server, samples.silent)
    by_owner = verify.verify_all(stores.reopened(many), samples.silent)
    assert [each.object for each in by_server.findings] == [each.object for each in by_owner.findings] == [name]
    if how != "the digests":  # then the owner reads the chunks all the same
        assert same_findings(by_server, by_owner)


def test_chunks_that_were_stored_together_are_hurt_together(repo: Repository) -> None:
    contents = {number: noise(number, 4096) for number in range(6)}
    with repo.writer(samples.ignore) as writer:
        cuts = [Cut(repo.chunk_id(data), 4096 * number, 4096) for number, data in contents.items()]
        writer.put_many(ChunkClass.CONTENT, b"".join(contents.values()), cuts)
    made = samples.add_snapshot(repo, {"vda": Image(20 * BLOCK, contents | {9: noise(9)})})
    assert len({location.frame for _, location in repo.index.copies(range(6))}) == 1
    server = Repository(repo.store, repo.secrets.structure_alone(), _settings(repo), encrypted=True)
    assert verify.verify_all(server, samples.silent).findings == ()
    damaged = flip(repo, contents[3])
    [finding] = verify.verify_all(server, samples.silent).findings
    assert finding.object == f"packs/{damaged.hex()}"
    assert finding.touched == (verify.Touched(made.id, "web", "vda", (Extent(0, 6 * BLOCK),)),)
    assert same_findings(
        verify.verify_all(stores.reopened(repo), samples.silent), verify.verify_all(server, samples.silent)
    )


def test_a_disk_that_reads_some_chunks_only(many: Repository, server: Repository) -> None:
    store = many.store
    assert isinstance(store, FaultyStore)
    location = many.index.find(many.chunk_id(noise(1)))
    assert location is not None
    name, place = f"packs/{location.pack_id.hex()}", location.frame.offset
    unreadable = errors.Damaged("the disk says no", object=name)

    class Rotten:
        def read_range(self, key: str, offset: int, length: int) -> bytes:
            if key == name and offset <= place < offset + length:
                raise unreadable
            return store.read_range(key, offset, length)

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    server.store = Rotten()  # type: ignore[assignment]
    [finding] = verify.verify_all(server, samples.silent).findings
    [touched] = finding.touched
    assert (finding.object, [extent.start for extent in touched.extents]) == (name, [BLOCK])
