"""Every constant of format 1, and the layout of its objects. ``docs/format.md`` draws the same byte by byte.

All numbers are little endian. Keys of objects::

    config                      what the repository is
    keys/<key id>               the secrets, wrapped by a password
    packs/<pack id>             chunks, and the index of the pack at its end
    indexes/<index id>          the indexes of several packs
    snapshots/<snapshot id>     a manifest, or the tombstone of a revoked draft
    drafts/<draft id>/<number>  the lease of a backup in the making, and what it has copied
    twins/<snapshot id>         the same again as under snapshots/
    twins/config                the same again as config
    losses/<loss id>            what a repair found damaged
    labels/<snapshot id>/<id>   a tag of a snapshot, or its protection
    proofs/<snapshot id>/<id>   what a rehearsal of a snapshot has shown
    evidence/<snapshot id>/<id> what was seen of the guest in it
    leases/<lease id>/<number>  what somebody reads, or that somebody collects garbage
    condemned/<id>              packs that nothing is to be built on any longer
    doomed/<id>                 packs that are being deleted
"""

from __future__ import annotations

import enum
import re
import struct

from headstart import errors, units

#: Each object starts with magic, kind and version: 8 bytes.
MAGIC = b"HDSTRT"
VERSION = 1
#: Format 0, of before the first release, is read and gone on with.
READABLE = (0, 1)
HEADER_LENGTH = 8

CONFIG_KEY = "config"
KEYS = "keys/"
PACKS = "packs/"
INDEXES = "indexes/"
SNAPSHOTS = "snapshots/"
DRAFTS = "drafts/"
TWINS = "twins/"
LOSSES = "losses/"
LABELS = "labels/"
PROOFS = "proofs/"
EVIDENCE = "evidence/"
LEASES = "leases/"
CONDEMNED = "condemned/"
DOOMED = "doomed/"
CONFIG_TWIN = TWINS + CONFIG_KEY

#: Bytes of identifiers. In keys of objects they are written in lower case hex.
CHUNK_ID_LENGTH = 32
OBJECT_ID_LENGTH = 16
SECRET_LENGTH = 32
SALT_LENGTH = 16
TAG_LENGTH = 16
NONCE_LENGTH = 12
DIGEST_LENGTH = 32

#: A pack is closed when the next frame would make it longer than this, or when it has so many chunks: of chunks that
#: compress to nothing it would hold more than there should be in memory.
PACK_SIZE = 16 * units.MIB
PACK_CHUNKS = 1 << 13
#: Chunks that are stored together are compressed and sealed as one frame: so many bytes of them, and so many, at most.
#: A longer chunk is a frame of its own.
FRAME_SIZE = 256 * units.KIB
FRAME_CHUNKS = 255
#: Pack id, class of its chunks, seven zero bytes, after the header.
PACK_HEAD = struct.Struct(f"<{OBJECT_ID_LENGTH}sB7x")
PACK_START = HEADER_LENGTH + PACK_HEAD.size
#: Offset and length of the sealed index, counts of chunks, of frames and of origins, six zero bytes, then a header of
#: kind FOOTER.
PACK_FOOT = struct.Struct(f"<IIIIH6x{HEADER_LENGTH}s")
#: Per pack in an index object: pack id, class, zero byte, counts of origins, of chunks and of frames.
INDEX_HEAD = struct.Struct(f"<{OBJECT_ID_LENGTH}sBxHII")
#: Both in format 0, where each chunk is a frame: without the counts of frames and origins.
PACK_FOOT_0 = struct.Struct(f"<III4x{HEADER_LENGTH}s")
INDEX_HEAD_0 = struct.Struct(f"<{OBJECT_ID_LENGTH}sB3xI")
#: In place of a class: what follows are not chunks, but links to objects written before, or the index objects that
#: this one stands in for.
LINKED = 0
REPLACED = 255
#: A link: kind, id, and BLAKE3 of the whole object.
LINK = struct.Struct(f"<c{OBJECT_ID_LENGTH}s{DIGEST_LENGTH}s")
#: Flag of a frame: compressed with zstd.
COMPRESSED = 1
#: Flag of a frame: sealed in format 0, bound to the id of its one chunk.
BOUND = 2
#: Of block data, before compression. Bounds what a damaged length can make us allocate.
MAX_CHUNK_LENGTH = 16 * units.MIB
#: Of an index, a manifest or a record, before compression: bounds the same for them. An index of 2^17 chunks has 5 MiB.
MAX_OBJECT_LENGTH = units.GIB

#: Blocks that a leaf of an image tree covers, and children of an inner node.
TREE_LEAF = 256
TREE_FANOUT = 256

MIN_BLOCK_SIZE = 4 * units.KIB
#: Whatever is read comes in pieces of whole blocks, and of at most so much (``reading.PIECE_SIZE``).
MAX_BLOCK_SIZE = units.MIB

ZSTD_LEVEL = 1

_OBJECT_ID = re.compile(rf"[0-9a-f]{{{2 * OBJECT_ID_LENGTH}}}")


class Kind(enum.Enum):
    """What an object is, in the seventh byte of its header."""

    CONFIG = b"C"
    KEY = b"K"
    PACK = b"P"
    FOOTER = b"F"
    INDEX = b"I"
    SNAPSHOT = b"S"
    DRAFT = b"D"
    TWIN = b"T"
    LOSS = b"L"
    LABEL = b"B"
    PROOF = b"R"
    EVIDENCE = b"V"
    LEASE = b"E"
    CONDEMNED = b"G"
    DOOMED = b"X"


class ChunkClass(enum.IntEnum):
    """What a chunk is part of: decides under which secret it is sealed."""

    CONTENT = 1
    TREE = 2


def header(kind: Kind, version: int = VERSION) -> bytes:
    return MAGIC + kind.value + bytes([version])


def version_of(data: bytes, kind: Kind, name: str) -> int:
    """The format of an object; ``Damaged`` unless it starts as one of this kind does."""
    for version in READABLE:
        if data[:HEADER_LENGTH] == header(kind, version):
            return version
    raise errors.Damaged(f"{name} is damaged: it does not start as such an object does.", object=name)


def is_object_id(text: str) -> bool:
    return _OBJECT_ID.fullmatch(text) is not None
