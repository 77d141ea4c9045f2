"""docs/format.md is enough: a reader written from that page alone reads the golden repositories."""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from headstart import repository
from headstart.repository import keyring, manifest, paper, snapshot
from headstart.repository.loss import Loss
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.repository import goldens, samples


def derive(secret: bytes, purpose: str, *parts: bytes) -> bytes:
    return blake3(purpose.encode() + b"\0" + b"".join(parts), key=secret).digest()


@dataclass(frozen=True)
class Table:
    """What a pack holds."""

    ids: list[bytes]
    lengths: tuple[int, ...]
    counts: bytes
    sealed_lengths: tuple[int, ...]
    flags: bytes
    origins: list[tuple[bytes, int]]
    length: int

    @classmethod
    def read(cls, data: bytes, chunks: int, frames: int, origins: int) -> Table:
        shape = struct.Struct(f"<{32 * chunks}s{chunks}I{frames}s{frames}I{frames}s{16 * origins}s")
        ids, *rest = shape.unpack_from(data)
        lengths, counts, rest = tuple(rest[:chunks]), rest[chunks], rest[chunks + 1 :]
        sealed_lengths, flags, packs = tuple(rest[:frames]), rest[frames], rest[frames + 1]
        found: list[tuple[bytes, int]] = []
        length = shape.size
        if origins:
            columns = struct.Struct(f"<{frames}H{frames}I")
            numbers = columns.unpack_from(data, length)
            length += columns.size
            found = [
                (packs[16 * place : 16 * place + 16], number)
                for place, number in zip(numbers[:frames], numbers[frames:], strict=True)
            ]
        return cls(
            [ids[32 * at : 32 * at + 32] for at in range(chunks)],
            lengths,
            counts,
            sealed_lengths,
            flags,
            found,
            length,
        )


class Book:
    """The reader."""

    def __init__(self, folder: Path, password: bytes, *, with_content: bool = True) -> None:
        self.folder = folder
        data = self.read("config", b"C")
        self.config = json.loads(data[40:])
        self.id = bytes.fromhex(self.config["repository"])
        self.content, self.structure, self.chunk_id = self.secrets(password)
        assert data[8:40] == derive(self.structure, "config", data[40:])
        self.chunks: dict[bytes, bytes] = {}
        #: By chunk, of a frame of several.
        self.framed: set[bytes] = set()
        #: By index object and class.
        self.links: dict[tuple[str, int], list[tuple[bytes, bytes, bytes]]] = {}
        for path in sorted((folder / "packs").iterdir()) if with_content else ():
            self.chunks |= self.pack(path.name)

    def read(self, name: str, kind: bytes) -> bytes:
        data = (self.folder / name).read_bytes()
        assert data[:8] == b"HDSTRT" + kind + b"\1"
        return data

    def secrets(self, password: bytes) -> list[bytes]:
        for path in sorted((self.folder / "keys").iterdir()):
            data = self.read(f"keys/{path.name}", b"K")
            assert blake3(data).hexdigest()[:32] == path.name
            kdf, flags, memory, passes, lanes, salt = struct.unpack("<BB2xIII16s", data[8:40])
            end = 48 if flags & 2 else 40
            self.made = int.from_bytes(data[40:end], "little")
            joined = data[end:]
            if kdf == 1:
                derivation = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
                try:
                    joined = AESGCM(derivation.derive(password)).decrypt(bytes(12), joined, data[:end])
                except Exception:
                    continue
            secrets = [joined[:32], joined[32:64], joined[64:]]
            images = [derive(secret, "commitment") for secret in secrets]
            if flags & 1:
                images[0], images[2] = secrets[0], secrets[2]
            assert blake3(b"".join(images)).digest()[:16] == self.id
            return secrets
        raise AssertionError("no key")

    def sealed(self, name: str, kind: bytes) -> bytes:
        data = self.read(name, kind)
        cipher = AESGCM(derive(self.structure, "object", kind, data[8:24]))
        return zstandard.decompress(cipher.decrypt(bytes(12), data[24:], self.id + data[:8] + name.encode()))

    def pack(self, name: str) -> dict[bytes, bytes]:
        data, pack_id = self.read(f"packs/{name}", b"P"), bytes.fromhex(name)
        assert data[8:24] == pack_id
        assert data[-8:] == b"HDSTRTF\1"
        kind = data[24:25]
        offset, length, count, frames, origins = struct.unpack("<IIIIH", data[-32:-14])
        context = self.id + kind + struct.pack("<HIII", origins, count, frames, offset)
        own = AESGCM(derive(self.structure, "pack index", pack_id)).decrypt(
            bytes(12), data[offset : offset + length], context
        )
        table = Table.read(own, count, frames, origins)
        id_key = derive(self.chunk_id, "content id") if kind == b"\1" else derive(self.structure, "tree id")
        chunks: dict[bytes, bytes] = {}
        start = 32
        ids = iter(zip(table.ids, table.lengths, strict=True))
        for number, sealed_length in enumerate(table.sealed_lengths):
            origin, sealed_as = table.origins[number] if origins else (pack_id, number)
            sealed = data[start : start + sealed_length]
            assert blake3(sealed).digest() == own[table.length + 32 * number :][:32]
            cipher = AESGCM(derive(self.content if kind == b"\1" else self.structure, "pack", kind, origin))
            frame = cipher.decrypt(sealed_as.to_bytes(12, "little"), sealed, self.id + kind)
            frame = zstandard.decompress(frame) if table.flags[number] & 1 else frame
            for _ in range(table.counts[number]):
                chunk_id, raw_length = next(ids)
                chunk, frame = frame[:raw_length], frame[raw_length:]
                assert blake3(chunk, key=id_key).digest() == chunk_id
                chunks[chunk_id] = chunk
                if table.counts[number] > 1:
                    self.framed.add(chunk_id)
            assert frame == b""
            start += sealed_length
        assert start == offset and next(ids, None) is None
        return chunks

    def blocks(self, node_id: str | None, size: int) -> dict[int, bytes]:
        if node_id is None:
            return {}
        count = -(-size // self.config["block_size"])
        level, covers = 0, self.config["tree_leaf"]
        while covers < count:
            level, covers = level + 1, covers * self.config["tree_fanout"]
        return dict(self.below(bytes.fromhex(node_id), level, 0))

    def below(self, node_id: bytes, level: int, index: int) -> list[tuple[int, bytes]]:
        data = self.chunks[node_id]
        width = self.config["tree_fanout"] if level else self.config["tree_leaf"]
        assert data[0] == level
        found: list[tuple[int, bytes]] = []
        place = 1 + width // 8
        for slot in range(width):
            if data[1 + slot // 8] >> slot % 8 & 1:
                child, number = data[place : place + 32], index * width + slot
                found += self.below(child, level - 1, number) if level else [(number, self.chunks[child])]
                place += 32
        assert place == len(data)
        return found

    def snapshots(self) -> dict[str, dict[str, Any]]:
        names = sorted(path.name for path in (self.folder / "snapshots").iterdir())
        return {name: json.loads(self.sealed(f"snapshots/{name}", b"S")) for name in names}

    def listed(self) -> dict[str, set[bytes]]:
        """By pack, the chunks that the index objects list."""
        packs: dict[str, set[bytes]] = {}
        for path in (self.folder / "indexes").iterdir():
            payload = self.sealed(f"indexes/{path.name}", b"I")
            while payload:
                pack_id, kind, origins, count, frames = struct.unpack_from("<16sBxHII", payload)
                payload = payload[28:]
                if kind in (0, 255):
                    self.links[path.name, kind] = list(struct.iter_unpack("<c16s32s", payload[: 49 * count]))
                    payload = payload[49 * count :]
                    continue
                table = Table.read(payload, count, frames, origins)
                packs[pack_id.hex()] = set(table.ids)
                payload = payload[table.length :]
        return packs


@pytest.mark.parametrize("name", ["format1", "format1-plain"])
def test_reads_everything(name: str) -> None:
    book = Book(goldens.FOLDER / name, goldens.PASSWORD)
    assert book.config["block_size"] == goldens.BLOCK
    found = book.snapshots()
    assert found.pop(goldens.REVOKED) == {"revoked": True, "twin": True}
    expected = {goldens.FIRST: goldens.ONE, goldens.SECOND: goldens.TWO, goldens.THIRD: goldens.THREE}
    for snapshot_id, blocks in expected.items():
        manifest = found.pop(snapshot_id)
        assert manifest["id"] == snapshot_id
        vda, sda = manifest["disks"]
        assert book.blocks(vda["root"], vda["size"]) == blocks
        assert book.blocks(sda["root"], sda["size"]) == {}
        [attached] = manifest["attachments"]
        definition = b"".join(book.chunks[bytes.fromhex(chunk)] for chunk in attached["chunks"])
        assert definition == goldens.DEFINITION
    assert found == {}
    assert set.union(*book.listed().values()) == set(book.chunks)
    # The definition is two chunks, which were stored one by one.
    assert len(book.framed) == len(goldens.MANY)


@pytest.mark.parametrize("name", ["format1", "format1-plain"])
def test_reads_drafts(name: str) -> None:
    book = Book(goldens.FOLDER / name, goldens.PASSWORD)
    payload = book.sealed(f"drafts/{goldens.DRAFT}/00000001", b"D")
    length = int.from_bytes(payload[:4], "little")
    head = json.loads(payload[4 : 4 + length])
    assert head == {
        "time": 1_700_007_201.5,
        "vm": "web",
        "host": "host",
        "packs": ["ab" * 16],
        "disks": [["vda", 1], ["sda", 0]],
        "links": head["links"],
    }
    assert payload[4 + length :] == (7).to_bytes(4, "little") + bytes(range(32))


def test_reads_what_tells_of_damage(tmp_path: Path) -> None:
    """Twins, links and losses, which the golden repositories are too old to have."""
    with repository.create(LocalStore(tmp_path), goldens.PASSWORD, block_size=goldens.BLOCK) as repo:
        image = samples.Image(goldens.SIZE, goldens.ONE)
        made = samples.add_snapshot(repo, {"vda": image})
        noted = Loss("1" * 32, 5.0, {b"p" * 16: None}, ("keys/x",), ("a" * 32,))
        repo.holdings.lose(noted)
        repo.holdings.write(replaced=["indexes/" + "2" * 32])
        snapshot.revoke(repo, goldens.REVOKED)
    book = Book(tmp_path, goldens.PASSWORD)
    assert (tmp_path / "twins" / "config").read_bytes() == (tmp_path / "config").read_bytes()
    for each in (made.id, goldens.REVOKED):
        assert book.sealed(f"twins/{each}", b"T") == book.sealed(f"snapshots/{each}", b"S")
    assert book.snapshots()[goldens.REVOKED] == {"revoked": True, "twin": True}
    [first] = made.links
    assert book.snapshots()[made.id]["links"] == [{"name": first.name, "digest": first.digest.hex()}]
    assert book.snapshots()[made.id]["keys"] == [f"keys/{path.name}" for path in (tmp_path / "keys").iterdir()]
    assert set.union(*book.listed().values()) == set(book.chunks)
    [(last, _)] = [each for each in book.links if each[1] == 255]
    assert book.links[last, 255] == [(b"I", b"\x22" * 16, bytes(32))]
    loss = (tmp_path / "losses" / noted.id).read_bytes()
    assert sorted(book.links[last, 0]) == [
        (b"I", bytes.fromhex(first.name.removeprefix("indexes/")), first.digest),
        (b"L", b"\x11" * 16, blake3(loss).digest()),
    ]
    assert json.loads(book.sealed(f"losses/{noted.id}", b"L")) == {
        "time": 5.0,
        "copies": {(b"p" * 16).hex(): None},
        "objects": ["keys/x"],
        "snapshots": ["a" * 32],
        "hurt": [],
    }


def test_reads_what_a_backup_was_made_without(tmp_path: Path) -> None:
    told = {
        "volume": "vda/2",
        "content": "swap",
        "label": "paging",
        "mounted": ["/nowhere"],
        "pattern": "!swap",
        "extents": [{"start": 4 * goldens.BLOCK, "length": 2 * goldens.BLOCK}],
    }
    with repository.create(LocalStore(tmp_path), goldens.PASSWORD, block_size=goldens.BLOCK) as repo:
        made = samples.add_snapshot(repo, {"vda": samples.Image(goldens.SIZE, goldens.ONE)})
        without = dataclasses.replace(made.disks[0], excluded=manifest.excluded_of([told]))
        again = snapshot.publish(repo, dataclasses.replace(made, id="f" * 32, disks=(without,)))
        assert list(manifest.excluded_blocks(snapshot.load(repo, again.id).disks[0])) == [4, 5]
    found = Book(tmp_path, goldens.PASSWORD).snapshots()
    assert found[again.id]["disks"][0]["excluded"] == [told]
    assert not found[made.id]["disks"][0].get("excluded")


@pytest.mark.parametrize("wrong", [{"extents": [{"start": 0, "length": 0}]}, {"mounted": "x"}, {"volume": 5}])
def test_what_cannot_be_excluded(wrong: dict[str, object]) -> None:
    told = {"volume": "", "content": "", "label": "", "mounted": [], "pattern": "", "extents": []}
    assert manifest.excluded_of([told])
    with pytest.raises(ValueError):
        manifest.excluded_of([told | wrong])


def test_reads_the_key_of_the_structure_alone(tmp_path: Path) -> None:
    with repository.create(LocalStore(tmp_path), b"everything", block_size=goldens.BLOCK, now=7.5) as repo:
        made = samples.add_snapshot(repo, {"vda": samples.Image(goldens.SIZE, goldens.ONE)})
        keyring.add(repo, goldens.PASSWORD, 1_700_000_000.0, structure_alone=True, cost=stores.QUICK)
        paper_lines = paper.lines(repo.secrets)
    book = Book(tmp_path, goldens.PASSWORD, with_content=False)
    assert book.made == 1_700_000_000
    assert list(book.snapshots()) == [made.id]
    assert set(book.listed()) == {path.name for path in (tmp_path / "packs").iterdir()}
    whole = Book(tmp_path, b"everything")
    assert (whole.made, whole.structure) == (7, book.structure)
    images = [derive(secret, "commitment") for secret in (whole.content, whole.chunk_id)]
    assert [book.content, book.chunk_id] == images
    assert _typed(paper_lines) == whole.content + whole.structure + whole.chunk_id


def _typed(lines: list[str]) -> bytes:
    secrets = b""
    for number, line in enumerate(lines):
        bits = "".join(f"{'0123456789ABCDEFGHJKMNPQRSTVWXYZ'.index(letter):05b}" for letter in line.replace("-", ""))
        data = int(bits, 2).to_bytes(15, "big")
        assert data[12:] == blake3(b"paper key\0" + bytes([number]) + data[:12]).digest()[:3]
        secrets += data[:12]
    return secrets
