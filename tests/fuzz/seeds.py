"""Values as they are really encoded, to begin with: a fuzzer does not guess a checksum, a digest or JSON."""

from __future__ import annotations

import json
import struct
from typing import Any

from headstart.agentd import frames, messages
from headstart.agentd.messages import Read
from headstart.repository import (
    codec,
    condemned,
    draft,
    keys,
    layout,
    lease,
    listing,
    manifest,
    node,
    pack,
    paper,
    seal,
    snapshot,
)
from headstart.repository.config import Config
from headstart.repository.draft import Entries, Record
from headstart.repository.lease import Lease
from headstart.repository.manifest import Attachment, Disk, Manifest
from headstart.repository.packtable import PackEntries
from headstart.repository.root import Root
from tests.fuzz.stored import OBJECT_ID, PACK_ID, SECRETS, SLOTS

MAP: dict[str, Any] = {
    "disks": [
        {"name": "vda", "size": 1 << 20, "serial": "serial", "wwn": "", "pci": "0000:00:04.0"},
        {"name": "sda", "size": 1 << 20, "serial": "", "wwn": "naa.5000c500", "pci": ""},
    ],
    "volumes": [
        {"name": "vda1", "size": 512, "kind": "partition", "label": "", "segments": [[0, 512, 0, [["vda", 512]]]]},
        {
            "name": "dm-0",
            "size": 64,
            "kind": "lvm",
            "label": "vg-home",
            "segments": [[0, 64, 8, [["vda", 0], ["sda", 9]]]],
        },
        {"name": "dm-1", "size": 64, "kind": "dm", "label": "crypt", "segments": None},
    ],
    "mounts": [{"device": "vda1", "point": "/", "type": "ext4"}, {"device": "dm-0", "point": "/srv", "type": "xfs"}],
}
FIGURES: dict[str, Any] = {
    "time": 1.0,
    "ticks": 100,
    "cpus": 2,
    "cpu": {"user": 1, "nice": 0, "system": 2, "idle": 3, "iowait": 1, "irq": 0, "softirq": 1, "steal": 0},
    "disks": {"vda": {"busy_ms": 1, "read_ms": 1, "write_ms": 1, "read_bytes": 9, "written_bytes": 9, "flush_ms": 1}},
    "network": {"received": 1, "sent": 2, "speed": 125000000},
    "pressure": {"cpu": {"avg10": 0.1, "total": 1}, "io": {"total": 5}, "memory": {"total": 0}},
    "own": {"cpu_seconds": 0.5, "read_bytes": {"vda": 4}, "read_seconds": {"vda": 0.1}, "sent_bytes": 3},
}
MANIFEST = Manifest(
    OBJECT_ID,
    "web",
    1_700_000_000.25,
    None,
    "filesystem",
    "host",
    "inst",
    (
        Disk("vda", 40960, "qcow2", bytes(32), 4096, "serial", "virtio-blk", {"a": [1]}),
        Disk("sda", 0, "raw", None, 4096),
    ),
    (Attachment("definition", "xml", 5000, (bytes(32), bytes(range(32)))),),
    {"v": [0]},
)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _conversation(which: int, *told: tuple[int, int, bytes]) -> bytes:
    heads = (bytes([kind, request]) + len(payload).to_bytes(2, "big") + payload for kind, request, payload in told)
    return bytes([which]) + b"".join(heads)


def _channel() -> list[bytes]:
    welcome = (messages.WELCOME, 1, _json({"protocols": [1, 1], "release": 1}))
    data = (messages.DATA, 2, messages.pack_position(0) + b"123456789")
    zeroes = (messages.ZEROES, 2, messages.pack_span((16, 8)))
    done = (messages.ANSWER, 2, b"{}")
    return [
        _conversation(0, welcome, (messages.ANSWER, 2, _json(MAP))),
        _conversation(0, welcome, (messages.REFUSAL, 2, _json({"code": "failed", "text": "why"}))),
        _conversation(0, welcome, (messages.REFUSAL, 2, _json({"code": "strange"}))),
        _conversation(1, welcome, data, zeroes, done),
        _conversation(2, welcome, (messages.NOTE, 2, _json(FIGURES)), (messages.NOTE, 2, b"{}")),
        _conversation(3, welcome, (messages.NOTE, 2, _json({"frozen": 2, "skipped": [{"point": "/", "why": "busy"}]}))),
        _conversation(4, welcome, (messages.ANSWER, 2, _json({"thawed": 0, "early": False}))),
        _conversation(5, welcome, (messages.ANSWER, 2, _json({"digests": ["aa"]}))),
        _conversation(0, (messages.WELCOME, 1, _json({"protocols": [2, 3]}))),
    ]


def _session() -> list[bytes]:
    hello = (messages.HELLO, 1, _json({"protocols": [1, 1]}))
    asks: tuple[tuple[int, int, bytes], ...] = (
        (messages.ASK, 2, _json({"do": "map"})),
        (messages.ASK, 2, _json({"do": "other"})),
        (messages.READ, 2, messages.pack_read(Read({"disk": "vda"}, [(0, 9)]))),
        (messages.CREDIT, 2, messages.pack_credit(9)),
        (messages.CANCEL, 2, b""),
        (messages.FILE, 2, messages.pack_position(0) + b"x"),
    )
    return [_conversation(0, hello, ask)[1:] for ask in asks] + [_conversation(0, *asks)[1:]]


def _device_mapper() -> list[bytes]:
    def line(start: int, length: int, kind: str, text: str) -> bytes:
        coded = text.encode() + bytes(8 - len(text) % 8)
        return struct.pack("=QQiI16s", start, length, 0, 40 + len(coded), kind.encode()) + coded

    striped = line(0, 64, "striped", "2 8 8:0 0 8:1 100")
    return [b"\1" + line(0, 8, "linear", "8:0 2048"), b"\1" + striped, b"\1" + line(0, 8, "crypt", "aes 8:0")]


MOUNTS = (
    b"22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    b"23 22 0:40 /@ /srv/a\\040b rw - btrfs /dev/null rw,ssd\n24 22 0:5 / /dev rw - devtmpfs udev ro\n"
)

NODES = [{"node-name": name, "drv": driver, "file": "/disk", "ro": False, "image": {"virtual-size": 4096}}
         for name, driver in (("top", "throttle"), ("fmt", "qcow2"), ("file", "file"))]  # fmt: skip
BLOCK = [{"device": "drive0", "qdev": "/machine/peripheral/disk0/virtio-backend", "inserted": {"node-name": "top"}},
         {"device": "cd", "qdev": "cd", "removable": True}]  # fmt: skip
GRAPH = {
    "nodes": [
        {"id": number, "name": name, "type": "block-driver"} for number, name in enumerate(("top", "fmt", "file"))
    ],
    "edges": [{"parent": 0, "child": 1, "name": "file"}, {"parent": 1, "child": 2, "name": "file"}],
}

TOML = b"""\
[host]
repository = "/backups"
[policy.web]
schedule = "Mon..Fri 22:00"
retention = { daily = 7 }
[policy.web.head_start]
interval = "20 min"
[vm."web*"]
policy = "web"
[default]
policy = "none"
"""


def _pack() -> tuple[PackEntries, bytes, bytes]:
    """Its table, and a whole pack of two chunks that are not sealed soundly."""
    ids = bytes(range(32)) + bytes(32)
    moved = bytes(32) + struct.pack("<HHII", 1, 0, 3, 4)
    columns = struct.pack("<II", 4, 4096) + bytes([1, 1]) + struct.pack("<II", 20, 40) + bytes([0, layout.COMPRESSED])
    entries = PackEntries.decode(PACK_ID, 1, 2, 2, 2, ids + columns + moved)
    frames = bytes(60)
    end = layout.PACK_START + len(frames)
    inner = entries.encode() + bytes(64)
    foot = pack._Foot(layout.VERSION, end, len(inner) + layout.TAG_LENGTH, 2, 2, 2)
    sealed = seal.seal_pack_index(SECRETS, PACK_ID, pack._index_context(1, foot), inner)
    return entries, inner, pack._head(PACK_ID, 1) + frames + sealed + foot.encode()


def seeds() -> dict[str, list[bytes]]:
    """By target."""
    entries, inner, whole = _pack()
    record = Record(OBJECT_ID, 1, 5.5, "web", "host", ("ab" * 16,), {"vda": Entries.of([(7, bytes(32))])})
    config = Config(SECRETS.repository_id, 65536).encode(SECRETS)
    cheap = keys.Argon2(32, 1, 1)
    key_objects = [
        keys.wrap(SECRETS, None, cheap)[1],
        keys.wrap(SECRETS, b"p", cheap)[1],
        keys.wrap(SECRETS.structure_alone(), b"password", cheap, 1.7e9)[1],
    ]
    slots = [bytes([number]) * 32 if number % 3 == 0 else None for number in range(SLOTS)]
    leaf, inner_node = node.encode(0, slots), node.encode(1, slots[:1] + [None] * (SLOTS - 1))
    assert leaf and inner_node
    payload = manifest.encode(MANIFEST)
    sent = frames.encode(messages.ANSWER, 7, 1, b"{}") + frames.encode(messages.DATA, 7, 2, bytes(8) + frames.MAGIC)
    return {
        "frames": [b"\x20" + sent, b"\0" + sent[:40] + frames.preamble(600) + sent, b"\5" + frames.MAGIC * 20],
        "messages": [
            b"\0" + messages.pack_credit(5),
            b"\1" + messages.pack_span((1, 2)),
            b"\2" + messages.pack_position(3) + b"x",
            b"\3" + messages.pack_read(Read({"disk": "vda"}, [(0, 9), (16, 1)])),
            b'\4{"do":"map"}',
        ],
        "map": [_json(MAP)],
        "figures": [_json(FIGURES) + b"\n" + _json(FIGURES | {"time": 2.0})],
        "channel": _channel(),
        "session": _session(),
        "devicemapper": _device_mapper(),
        "mounts": [MOUNTS],
        "qga": [
            b'{"return":3}\n',
            b'{"error":{"class":"GenericError","desc":"no"}}\n',
            b'{"return":{"supported_commands":[{"name":"guest-exec","enabled":true},{"name":"guest-exec-status",'
            b'"enabled":true}]}}\n{"return":{"pid":5}}\n{"return":{"exited":true,"exitcode":1,"err-data":"eA=="}}\n',
        ],
        "qmp": [_json([NODES, BLOCK, GRAPH]), _json([NODES, BLOCK, GRAPH, "virtio-blk", "serial", 5, 32, "bus/pci.0"])],
        "block-status": [struct.pack(">6I", 4096, 0, 1 << 20, 2, 1 << 26, 0)],
        "toml": [TOML],
        "trace": [b"seconds,offset,length\n0.5,0,4096\n1,65536,131072\n", b"0,0.5\n60,1\n"],
        "config": [config, config[40:]],
        "key": [*key_objects, key_objects[0][8:]],
        "paper": ["\n".join(paper.lines(SECRETS)).encode()],
        "pack": [whole, b"\1\2\2\2" + inner],
        "pack-table": [b"\2\2\2" + entries.encode()],
        "index": [listing.encode([entries]), listing.encode([entries, entries])],
        "node": [leaf, inner_node],
        "manifest": [payload],
        "draft": [draft.encode(record)],
        "lease": [
            lease.encode(Lease("", "host", "restore", (Root("11" * 16, "a", 1 << 30, bytes(32)),), (bytes(32),)))
        ],
        "packs-that-go": [condemned.encode([bytes(16), bytes(range(16))])],
        "label": [b'{"protected":true}', b'{"tag":"q1"}'],
        "evidence": [b'{"screenshot":"QUJD","console":"login:","answers":{"port:22":"something listens"}}'],
        "proof": [
            b'{"time":1,"host":"h","passed":false,"seconds":2.5,"awaited":"agent","reason":"no",'
            b'"checks":[{"name":"agent","passed":true}]}'
        ],
        "sealed": [
            seal.seal_object(SECRETS, layout.Kind.SNAPSHOT, snapshot.key_of(OBJECT_ID), payload),
            codec.compress(payload),
        ],
        "frame": [len(payload).to_bytes(2, "little") + codec.compress(payload)],
        "snapshots": [payload, b'{"revoked":true}'],
    }
