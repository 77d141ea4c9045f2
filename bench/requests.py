"""What a repository in a bucket asks of the server, which is what providers charge for: ``python -m bench.requests``.

Counted by a gateway in front of SeaweedFS, of content that does not compress, without a VM: rounds and hooks ask for
nothing more, but each round adds a record of its draft.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from headstart import repository, units
from headstart.repository import Repository, draft, layout, snapshot, tree, verify
from headstart.repository.manifest import Disk, Manifest
from headstart.store import open_store
from tests.kit import stores
from tests.kit import weed as weeds
from tests.kit.gateway import Gateway
from tests.kit.weed import Weed

BLOCK = units.BLOCK_SIZE
#: Blocks of which one in so many is rewritten for the incremental backup.
REWRITTEN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the disk")
    given = parser.parse_args()
    blocks = given.size * units.MIB // BLOCK
    print(f"| of a disk of {given.size} MiB | PUT | GET | GET that lists | HEAD | DELETE |")
    print("|---|---|---|---|---|---|")
    with Weed() as weed, Gateway(weed.url) as gateway:
        os.environ.update(weeds.environment(gateway.url))
        url = f"s3://{weed.new_bucket()}/requests"

        def count(what: str, work: Callable[[], object]) -> None:
            gateway.requests.clear()
            work()
            lists = gateway.count("GET", "list-type")
            columns = (gateway.count("PUT"), gateway.count("GET") - lists, lists)
            rest = (gateway.count("HEAD"), gateway.count("DELETE"))
            print(f"| {what} | {' | '.join(map(str, (*columns, *rest)))} |", flush=True)

        count("init", lambda: repository.create(open_store(url), stores.PASSWORD, cost=stores.QUICK).close())
        count("full backup", lambda: _back_up(url, range(blocks), 0, blocks))
        count("incremental backup of a tenth", lambda: _back_up(url, range(0, blocks, REWRITTEN), 1, blocks))
        count("verify", lambda: _with(url, _verify))
        count("restore", lambda: _with(url, _restore))


def _with(url: str, work: Callable[[Repository], None]) -> None:
    with repository.open(open_store(url), lambda: stores.PASSWORD) as repo:
        work(repo)


def _back_up(url: str, changed: range, seed: int, blocks: int) -> None:
    """As a run does: a draft with its lease, one round, the manifest."""

    def work(repo: Repository) -> None:
        made = draft.begin(repo, "vm", "host", 1000.0 + seed)
        found = snapshot.all_manifests(repo).manifests
        before = found[-1].disks[0] if found else None
        with repo.writer(_ignore) as writer, ThreadPoolExecutor(2) as threads:

            def put(block: int) -> tuple[int, bytes]:
                data = random.Random(block * 2 + seed).randbytes(BLOCK)
                chunk_id = repo.chunk_id(data)
                writer.put(layout.ChunkClass.CONTENT, chunk_id, data)
                return block, chunk_id

            entries = list(threads.map(put, changed))
            root, size = (before.root, before.size) if before else (None, 0)
            root = tree.update(repo, writer, root, size, blocks * BLOCK, entries)
        draft.record(repo, made, 1, 1000.0 + seed, writer.packs, {"vda": entries})
        disk = Disk("vda", blocks * BLOCK, "raw", root, BLOCK)
        snapshot.publish(repo, Manifest(made.id, "vm", 1000.0 + seed, None, "crash", "host", "installation", (disk,)))
        draft.drop(repo, made.id)

    _with(url, work)


def _ignore(tokens: list[int]) -> None:
    """Nobody waits for chunks to become durable."""


def _verify(repo: Repository) -> None:
    assert verify.verify_all(repo, lambda done, total: None).findings == ()


def _restore(repo: Repository) -> None:
    disk = snapshot.all_manifests(repo).manifests[-1].disks[0]
    for window in _windows(tree.walk(repo, disk.root, disk.size)):
        for _ in repo.read_chunks(window):
            pass


def _windows(found: Iterator[tuple[int, bytes]], length: int = 4096) -> Iterator[list[bytes]]:
    ids = [chunk_id for _, chunk_id in found]
    return (ids[start : start + length] for start in range(0, len(ids), length))


if __name__ == "__main__":
    main()
