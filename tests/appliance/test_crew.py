"""Rounds at appliances: real TLS, relays and NBD; every block durable and right, whoever vanishes when."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart import blocks, errors, repository
from headstart.appliance import keys, messages
from headstart.appliance.addresses import Address
from headstart.appliance.crew import Crew, Offered
from headstart.appliance.evidence import Seen
from headstart.appliance.link import Link, Lost
from headstart.appliance.relay import Ticket
from headstart.appliance.remote import Refused, Remote
from headstart.blocks import Blocks
from headstart.load.throttle import Halted
from headstart.repository import Repository
from headstart.store.contract import Data
from headstart.store.memory import MemoryStore
from headstart.transfer.pipeline import Stored
from headstart.units import KIB, MIB
from tests.kit import appliance, stores
from tests.kit.nbd import SIZE, WRITTEN, qemu_nbd, sparse

BLOCK = 64 * KIB
EVERYTHING = blocks.everything(SIZE, BLOCK)
WAIT_SECONDS = 20.0


class Slow(MemoryStore):
    """Packs wait until they may; then, if it is told to, they fail."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.broken = False

    def create(self, key: str, data: Data) -> None:
        if key.startswith("packs/"):
            assert self.open.wait(WAIT_SECONDS)
            if self.broken:
                raise errors.StoreFailed("the store is broken")
        super().create(key, data)


class Overseer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.chunks: dict[str, dict[int, bytes | None]] = {}
        self.packs: list[str] = []
        self.gone: list[str] = []
        self.beats = 0
        self.meanwhile: Callable[[int], None] = lambda beats: None

    def seen(self, found: Seen) -> None:
        for each in found.stored:
            known = self.chunks.setdefault(each.disk, {})
            assert each.block not in known, "a block counts once"
            known[each.block] = each.chunk
        self.packs += found.packs

    def lost(self, name: str, why: str) -> None:
        self.gone.append(why)

    def beat(self) -> None:
        self.beats += 1
        self.meanwhile(self.beats)


@pytest.fixture
def store() -> Slow:
    made = Slow()
    repository.create(made, stores.PASSWORD, cost=stores.QUICK).close()
    return made


@pytest.fixture
def repo(store: Slow) -> Iterator[Repository]:
    """The host's."""
    with repository.open(store, lambda: stores.PASSWORD) as opened:
        yield opened


@pytest.fixture
def hired(tmp_path: Path, store: Slow) -> Iterator[appliance.Hired]:
    with appliance.serving(tmp_path / "keys", store) as found:
        yield found
    store.open.set()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Offered, bytes]]:
    content = sparse(tmp_path / "image", SIZE, WRITTEN)
    with qemu_nbd(tmp_path / "image") as export:
        yield Offered(SIZE, export.uri), content


def check(repo: Repository, overseer: Overseer, content: bytes, wanted: Blocks, name: str = "disk") -> None:
    """Everything that counts is in the repository, and what the disk holds."""
    found = overseer.chunks.get(name, {})
    assert Blocks(found) == wanted
    for block, chunk in found.items():
        data = content[block * BLOCK : (block + 1) * BLOCK]
        assert (bytes(len(data)) if chunk is None else repo.read_chunk(chunk)) == data, block


def test_what_they_store_counts_and_is_right(
    repo: Repository, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    offered, content = disk
    overseer = Overseer()
    with Crew(repo, {"disk": offered}, overseer) as crew:
        assert crew.join(Remote(hired.address, repo))
        assert not crew.copy("disk", EVERYTHING)
        assert crew.settle() == {}
        assert crew.stored_bytes > 3 * MIB
    assert not overseer.gone
    check(repo, overseer, content, EVERYTHING)
    assert set(overseer.packs) == {key.split("/")[-1] for key, _ in repo.store.list("packs/")}


def test_several_share_several_disks(
    tmp_path: Path, store: Slow, repo: Repository, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    offered, content = disk
    overseer = Overseer()
    scattered = Blocks(range(0, 380, 3))
    with (
        appliance.serving(tmp_path / "keys", store) as other,
        Crew(repo, {"disk": offered, "more": offered}, overseer) as crew,
    ):
        assert crew.join(Remote(hired.address, repo)) and crew.join(Remote(other.address, repo))
        permit = Permit()
        assert not crew.copy("disk", EVERYTHING, permit) and not crew.copy("more", scattered, permit)
        assert crew.settle() == {}
        assert all(each["stored_bytes"] for each in crew.figures().values()), "one did all"
    assert permit.waited == SIZE + len(scattered) * BLOCK
    check(repo, overseer, content, EVERYTHING)
    check(repo, overseer, content, scattered, "more")


class Permit:
    def __init__(self, until: int = 1 << 60) -> None:
        self.waited = 0
        self._until = until

    def portion(self) -> int:
        return 4 * BLOCK

    def wait(self, count: int) -> None:
        self.check()
        self.waited += count

    def check(self) -> None:
        if self.waited >= self._until:
            raise Halted("enough")


def test_a_round_that_is_halted_keeps_what_was_read(
    repo: Repository, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    offered, content = disk
    overseer = Overseer()
    with Crew(repo, {"disk": offered}, overseer) as crew:
        crew.join(Remote(hired.address, repo))
        permit = Permit(3 * MIB)
        with pytest.raises(Halted):
            crew.copy("disk", EVERYTHING, permit)
        assert crew.settle() == {}
    assert sum(len(found) for found in overseer.chunks.values()) * BLOCK == permit.waited
    check(repo, overseer, content, Blocks(overseer.chunks["disk"]))


class Spelled:
    """Shows a disk again and again, each time for moments. ``headstart.hypervisor.contract.Spells``."""

    spell_seconds = 0.02

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.count = 0
        self.shown = False

    @contextlib.contextmanager
    def spell(self) -> Iterator[str]:
        self.count, self.shown = self.count + 1, True
        yield self._uri
        self.shown = False


def test_a_disk_that_is_shown_in_spells(
    tmp_path: Path, store: Slow, repo: Repository, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    """It is brought again in each; what one that is lost had not stored comes back, and is read in another."""
    offered, content = disk
    overseer, spelled = Overseer(), Spelled(offered.uri)
    with (
        appliance.serving(tmp_path / "keys", store) as other,
        Crew(repo, {"disk": Offered(SIZE, "", spelled)}, overseer) as crew,
    ):
        first = Remote(hired.address, repo)
        assert crew.join(first) and crew.join(Remote(other.address, repo))
        overseer.meanwhile = lambda beats: cut(first) if beats == 8 else None
        assert not crew.copy("disk", EVERYTHING, Permit())
        assert not spelled.shown and spelled.count > 2
        again = crew.settle().get("disk", Blocks())
        assert not crew.copy("disk", again) and crew.settle() == {}
        assert len(crew.relays) <= 2, "those of spells that are over are gone"
    assert len(overseer.gone) == 1
    check(repo, overseer, content, EVERYTHING)


def test_what_a_lost_one_had_not_stored_comes_back(
    repo: Repository, store: Slow, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    """It has read all and the store hangs; then it is gone. Nothing counts that is not durable."""
    offered, _ = disk
    overseer = Overseer()
    store.open.clear()
    with Crew(repo, {"disk": offered}, overseer) as crew:
        remote = Remote(hired.address, repo)
        crew.join(remote)
        assert not crew.copy("disk", EVERYTHING)
        threading.Timer(0.3, cut, (remote,)).start()
        returned = crew.settle()
        assert not crew.there
    assert len(overseer.gone) == 1 and "lost" in overseer.gone[0]
    zeroes = Blocks(overseer.chunks.get("disk", {}))
    assert returned == {"disk": EVERYTHING - zeroes}
    assert all(chunk is None for chunk in overseer.chunks.get("disk", {}).values())


def cut(remote: Remote) -> None:
    """As if the machine, or the network, went away."""
    end = socket.socket(fileno=os.dup(remote.link.fileno()))
    with end:
        end.shutdown(socket.SHUT_RDWR)


def test_packs_that_a_lost_one_could_not_list_count(
    repo: Repository, store: Slow, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    """Durable is durable: the host finds the pack itself."""
    offered, content = disk
    overseer = Overseer()
    with Crew(repo, {"disk": offered}, overseer) as crew:
        remote = Remote(hired.address, repo)
        crew.join(remote)
        assert not crew.copy("disk", EVERYTHING)
        remote.flush()
        forget_indexes(store)
        while not remote.settled:
            crew._listen()
        cut(remote)
        assert crew.settle() == {}
    check(repo, overseer, content, EVERYTHING)


def forget_indexes(store: Slow) -> None:
    """What is listed from now on is lost at once: nobody but who wrote it knows of it."""
    create = store.create
    store.create = lambda key, data: None if key.startswith("indexes/") else create(key, data)  # type: ignore[method-assign]


def test_the_others_go_on_where_one_is_lost(
    tmp_path: Path, store: Slow, repo: Repository, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    offered, content = disk
    overseer = Overseer()
    with appliance.serving(tmp_path / "keys", store) as other, Crew(repo, {"disk": offered}, overseer) as crew:
        first = Remote(hired.address, repo)
        crew.join(first)
        crew.join(Remote(other.address, repo))
        overseer.meanwhile = lambda beats: cut(first) if beats == 3 else None
        assert not crew.copy("disk", EVERYTHING, Permit())
        again = crew.settle()
        if again:
            assert not crew.copy("disk", again["disk"])
            assert crew.settle() == {}
    assert len(overseer.gone) == 1
    check(repo, overseer, content, EVERYTHING)


@pytest.mark.parametrize("what", ["the relay", "the server"])
def test_a_disk_that_cannot_be_read_any_longer_is_given_back(
    repo: Repository, hired: appliance.Hired, tmp_path: Path, what: str
) -> None:
    sparse(tmp_path / "image", SIZE, WRITTEN)
    overseer = Overseer()
    with contextlib.ExitStack() as stack:
        export = stack.enter_context(qemu_nbd(tmp_path / "image"))
        crew = stack.enter_context(Crew(repo, {"disk": Offered(SIZE, export.uri)}, overseer))
        crew.join(Remote(hired.address, repo))
        if what == "the relay":
            for process in crew.relays:
                os.kill(process, signal.SIGKILL)
        else:
            os.kill(int(export.socket.with_name("pid").read_text()), signal.SIGKILL)
            stack.callback(lambda: None)
        try:
            rest = crew.copy("disk", EVERYTHING)
            for found in crew.settle().values():
                rest |= found
        finally:
            if what == "the server":
                restart = stack.pop_all()
                with contextlib.suppress(ProcessLookupError):
                    restart.close()
    assert rest | Blocks(overseer.chunks.get("disk", {})) == EVERYTHING
    assert rest and len(overseer.gone) == 1 and "refused" in overseer.gone[0], overseer.gone


def test_a_store_that_fails_there_is_told(
    repo: Repository, store: Slow, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    overseer = Overseer()
    store.broken = True
    with Crew(repo, {"disk": disk[0]}, overseer) as crew:
        crew.join(Remote(hired.address, repo))
        rest = crew.copy("disk", EVERYTHING) | crew.settle().get("disk", Blocks())
    assert rest | Blocks(overseer.chunks.get("disk", {})) == EVERYTHING
    assert "the store is broken" in overseer.gone[0]


def test_a_host_that_brings_a_disk_and_then_nothing_holds_nothing_up(
    tmp_path: Path, store: Slow, repo: Repository
) -> None:
    """Neither the thread nor the place that its round has."""
    with appliance.serving(tmp_path / "keys", store, sessions=1) as found:
        remote, ticket = Remote(found.address, repo), Ticket.new()
        told = {"disk": 0, "size": SIZE, "token": ticket.token, "secret": ticket.secret}
        remote.link.send(K.OFFER, messages.pack_json(told))
        remote._await(K.READY)
        with found.address.plain() as link:
            link.sendall(messages.DATA_MAGIC + ticket.token.encode())
            time.sleep(0.2)
            remote.close()
            deadline = time.monotonic() + WAIT_SECONDS
            while time.monotonic() < deadline:
                with contextlib.suppress(Refused), Remote(found.address, repo):
                    return
            pytest.fail("its place is taken still")


def test_another_repository_is_refused(tmp_path: Path, repo: Repository) -> None:
    other = MemoryStore()
    repository.create(other, stores.PASSWORD, cost=stores.QUICK).close()
    with appliance.serving(tmp_path / "keys", other) as found, pytest.raises(Refused, match="another one"):
        Remote(found.address, repo)


def test_one_more_round_than_it_may_is_refused(tmp_path: Path, store: Slow, repo: Repository) -> None:
    with appliance.serving(tmp_path / "keys", store, sessions=1) as found:
        with Remote(found.address, repo), pytest.raises(Refused, match="as many hosts as it may"):
            Remote(found.address, repo)
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Refused), Remote(found.address, repo):
                return
        pytest.fail("the first one has let go, and it is refused still")


def test_a_stranger_gets_nothing(tmp_path: Path, repo: Repository, hired: appliance.Hired) -> None:
    """Neither with keys of another pair, nor with an appliance's own."""
    keys.make(tmp_path / "others")
    for folder in (tmp_path / "others" / keys.HOST,):
        with pytest.raises(Lost, match="another key"):
            Remote(Address("127.0.0.1", hired.service.port, folder), repo)
    # Who trusts the appliance, but is not trusted by it.
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "host.pem").write_bytes((tmp_path / "others" / keys.HOST / "host.pem").read_bytes())
    (folder / "appliance.pem").write_bytes((hired.address.keys / "appliance.pem").read_bytes())
    with pytest.raises(Lost):
        Remote(Address("127.0.0.1", hired.service.port, folder), repo)


def test_a_disk_that_nobody_expects_is_not_taken(hired: appliance.Hired) -> None:
    with hired.address.plain() as link:
        link.settimeout(WAIT_SECONDS)
        link.sendall(messages.DATA_MAGIC + b"0" * messages.TOKEN_LENGTH)
        assert link.recv(1) == b""


def test_noise_at_the_port_does_no_harm(repo: Repository, hired: appliance.Hired) -> None:
    for noise in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", os.urandom(4096)):
        with hired.address.plain() as link:
            link.sendall(noise)
    Remote(hired.address, repo).close()


def test_a_disk_of_another_size_is_refused(
    repo: Repository, hired: appliance.Hired, disk: tuple[Offered, bytes]
) -> None:
    overseer = Overseer()
    with Crew(repo, {"disk": Offered(SIZE + BLOCK, disk[0].uri)}, overseer) as crew:
        assert not crew.join(Remote(hired.address, repo))
    assert "announced" in overseer.gone[0]


class Impostor:
    """Has the keys of an appliance, and says what it likes."""

    def __init__(self, folder: Path, answers: Callable[[Link, messages.Frame], None]) -> None:
        self._context = keys.context(folder / keys.APPLIANCE, keys.APPLIANCE)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1], folder / keys.HOST)
        self._answers = answers
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError, Lost):
            plain, _ = self._listener.accept()
            with Link(self._context.wrap_socket(plain, server_side=True)) as link:
                while True:
                    for frame in link.poll(1.0):
                        self._answers(link, frame)

    def close(self) -> None:
        self._listener.close()


def stored(disk: int, *claimed: tuple[int, bytes | None]) -> bytes:
    return messages.pack_stored(disk, [Stored("", block, chunk) for block, chunk in claimed])


K = messages.Kind
CHUNK = b"c" * 32


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([(K.STORED, stored(0, (7, CHUNK)))], "something else"),
        ([(K.STORED, stored(3, (0, CHUNK)))], "something else"),
        ([(K.STORED, stored(0, (0, CHUNK), (0, None)))], "something else"),
        ([(K.STORED, stored(0, (0, CHUNK))), (K.STORED, stored(0, (0, CHUNK)))], "something else"),
        ([(K.READ_ALL, messages.pack_progress(1)), (K.READ_ALL, messages.pack_progress(1))], "something else"),
        ([(K.READ_ALL, messages.pack_progress(9))], "something else"),
        ([(K.FLUSHED, b"{}")], "something else"),
        ([(K.STORED, b"x")], "nonsense"),
        ([(K.READY, b"")], "something else"),
    ],
    ids=[
        "a block",
        "a disk",
        "twice at once",
        "twice",
        "read twice",
        "a request",
        "flushed",
        "nonsense",
        "out of turn",
    ],
)
def test_what_was_not_asked_for_ends_it(
    tmp_path: Path, repo: Repository, frames: list[tuple[messages.Kind, bytes]], why: str
) -> None:
    def answer(link: Link, frame: messages.Frame) -> None:
        match frame.kind:
            case K.HELLO:
                link.send(K.WELCOME, b"{}")
            case K.READ:
                for kind, payload in frames:
                    link.send(kind, payload)

    with impostor(tmp_path, answer) as address, Remote(address, repo) as remote:
        pretend_offered(remote)
        remote.ask(0, list(blocks.to_extents(Blocks([0, 1]), BLOCK, SIZE)))
        with pytest.raises(Lost, match=why):
            listen(remote)


@contextlib.contextmanager
def impostor(folder: Path, answer: Callable[[Link, messages.Frame], None]) -> Iterator[Address]:
    keys.make(folder / "keys")
    made = Impostor(folder / "keys", answer)
    try:
        yield made.address
    finally:
        made.close()


def pretend_offered(remote: Remote) -> None:
    from headstart.appliance.remote import _Disk

    remote._disks[0] = _Disk(SIZE, None)


def listen(remote: Remote) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        remote.hear(0.1)


def test_chunks_that_are_nowhere_do_not_count(tmp_path: Path, repo: Repository) -> None:
    """It says that it has stored what it was asked for, and has not."""

    def answer(link: Link, frame: messages.Frame) -> None:
        match frame.kind:
            case K.HELLO:
                link.send(K.WELCOME, b"{}")
            case K.READ:
                asked = messages.unpack_read(frame.payload)
                claimed = [(block, CHUNK) for block in blocks.of_extents(asked.extents, BLOCK)]
                link.send(K.PACKS, messages.pack_packs(["00" * 16]))
                link.send(K.STORED, stored(0, *claimed))
                link.send(K.READ_ALL, messages.pack_progress(asked.request))
            case K.FLUSH:
                link.send(K.FLUSHED, b'{"stored_bytes": -5}')

    overseer = Overseer()
    with impostor(tmp_path, answer) as address, Crew(repo, {"disk": Offered(SIZE, "")}, overseer) as crew:
        remote = Remote(address, repo)
        pretend_offered(remote)
        crew._remotes.append(remote)
        wanted = Blocks(range(8))
        assert not crew.copy("disk", wanted)
        assert crew.settle() == {"disk": wanted}
        assert crew.stored_bytes == 0
    assert "not in the repository" in overseer.gone[0] and not overseer.chunks


def test_silence_is_not_waited_for(tmp_path: Path, repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.appliance.remote.SILENCE_SECONDS", 0.5)

    def answer(link: Link, frame: messages.Frame) -> None:
        if frame.kind is K.HELLO:
            link.send(K.WELCOME, b"{}")

    with impostor(tmp_path, answer) as address, Remote(address, repo) as remote:
        pretend_offered(remote)
        remote.ask(0, list(blocks.to_extents(Blocks([0]), BLOCK, SIZE)))
        with pytest.raises(Lost, match="not answered"):
            listen(remote)
